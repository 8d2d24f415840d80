"""Writes a stored model as a CAR file: every block once, each checked while it is read.

The order is that of `ipfs dag export`: depth first, a node before what is below it, so that the file can be read
from front to back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ...protocols.errors import AccelError, ErrorCode
from .car import encode_header, encode_section
from .cid import format_cid, inline_of, is_raw
from .contents import Contents
from .disk import OnProgress, coded_errors, sync
from .index import BlockIndex
from .layout import Layout
from .unixfs import Link, decode


def export_file(root: Path, cid: bytes, target: Path, progress: OnProgress = lambda *_: None) -> int:
    """Writes a model of the store at `root` into a new file, whole or not at all; how many bytes it has.

    Raises:
        AccelError: model-not-here, corrupt-content, bad-input where there is a file already, disk-full.
    """
    if target.exists():
        raise AccelError(ErrorCode.BAD_INPUT, f"{target} is there already", "Remove it, or give another name.")
    aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        with coded_errors():
            with aside.open("xb") as file:
                size = export_stream(root, cid, file, progress)
                file.flush()
                os.fsync(file.fileno())
            os.rename(aside, target)
            sync(target.parent)
    finally:
        aside.unlink(missing_ok=True)
    return size


def export_stream(root: Path, cid: bytes, out: BinaryIO, progress: OnProgress = lambda *_: None) -> int:
    """As `export_file`, into a stream. An exception out of `progress` ("exporting", done bytes, total) stops it."""
    written = 0
    for piece in pieces(root, cid, progress):
        written += out.write(piece)
    return written


def pieces(root: Path, cid: bytes, progress: OnProgress = lambda *_: None) -> Iterator[bytes]:
    """The CAR of a model in its parts, a block each. Raises AccelError model-not-here, corrupt-content."""
    layout = Layout(root)
    contents = layout.read_contents(cid) if layout.contents(cid).exists() else None
    if contents is None:
        called = format_cid(cid)
        raise AccelError(
            ErrorCode.MODEL_NOT_HERE, f"{called} is not on this node", f"Fetch it: ipfs-accel-node model get {called}"
        )
    total = contents.size + sum(map(len, contents.nodes.values()))
    yield encode_header([cid])
    done = 0
    for each, block in _blocks(contents, layout.model(cid)):
        yield encode_section(each, block)
        done += len(block)
        progress("exporting", min(done, total), total)
    progress("exporting", total, total)


def _blocks(contents: Contents, folder: Path) -> Iterator[tuple[bytes, bytes]]:
    index = BlockIndex()
    index.add(folder, contents)
    waiting, seen = [contents.root], set()
    while waiting:
        cid = waiting.pop()
        if cid in seen:
            continue
        seen.add(cid)
        inline = inline_of(cid)
        block = index.read(cid) if inline is None else inline
        if block is None:
            raise AccelError(
                ErrorCode.CORRUPT_CONTENT,
                f"a block of {format_cid(contents.root)} is damaged on disk: {format_cid(cid)}",
                f"Mend it: ipfs-accel-node repo verify {format_cid(contents.root)} --repair",
            )
        if cid in contents.nodes or inline is not None:
            waiting += [link.cid for link in reversed(_links(cid, block))]
        if inline is None:
            yield cid, block


def _links(cid: bytes, block: bytes) -> tuple[Link, ...]:
    return () if is_raw(cid) else decode(block).links

"""A model out of a CAR file: where its blocks lie, and those blocks as a source of a fetch, in whatever order they are.

What comes through a pipe is checked block by block while it is kept in a file, as the order may need any block later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from .car import CarReader, Section, encode_header, encode_section
from .cid import DAG_PB, format_cid, matches, parts
from .disk import OnProgress, coded_errors
from .exchange import Deliver
from .fetch import Fetcher, FetchReport
from .layout import Origin

OnBytes = Callable[[int], None]

#: Of 1 MiB each they are 4 TiB, and their index takes 800 MB.
_MAX_BLOCKS: Final = 4_000_000


@dataclass(frozen=True)
class CarIndex:
    """The roots that a CAR names, and where in it is the block of each SHA-256 digest: (offset, length)."""

    roots: list[bytes]
    places: dict[bytes, tuple[int, int]]

    def root(self, wanted: bytes | None = None) -> bytes:
        """The model's: the one that is wanted, or the only one there is. Raises AccelError bad-input."""
        if wanted is not None:
            return wanted
        folders = [root for root in self.roots if _is_folder(root)]
        if len(folders) == 1:
            return folders[0]
        told = ", ".join(map(format_cid, folders[:8])) or "none that could be a model"
        raise AccelError(
            ErrorCode.BAD_INPUT, f"this CAR file names {len(folders)} roots: {told}", "Choose one: --root CID"
        )


def read_index(path: Path) -> CarIndex:
    """Finds the blocks without reading them.

    Raises:
        AccelError: bad-input, corrupt-content for a file that ends early, too-large; permission-denied.
    """
    places: dict[bytes, tuple[int, int]] = {}
    with opened(path) as stream:
        reader = CarReader(stream)
        for section in reader.sections():
            if (digest := _digest(section)) is not None:
                places.setdefault(digest, (section.offset, section.length))
            if len(places) > _MAX_BLOCKS:
                raise AccelError(ErrorCode.TOO_LARGE, f"the CAR file has over {_MAX_BLOCKS} blocks", "Split it.")
    return CarIndex(reader.roots, places)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Raises AccelError bad-input for a path that is no file."""
    if not path.is_file():
        raise AccelError(ErrorCode.BAD_INPUT, f"{path} is no file", "Give a CAR file, or - for standard input.")
    with coded_errors(), path.open("rb") as stream:
        yield stream


class CarSource:
    """The blocks of a CAR file. What is wrong in it, whoever fetches finds out."""

    def __init__(self, path: Path, index: CarIndex) -> None:
        self.name = path.name
        self._path = path
        self._places = index.places

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError when the file cannot be read."""
        for cid in cids:
            await deliver(cid, await trio.to_thread.run_sync(self._read, cid))

    def _read(self, cid: bytes) -> bytes | None:
        place = self._places.get(parts(cid).digest or b"")
        if place is None:
            return None
        offset, length = place
        with opened(self._path) as stream:
            return os.pread(stream.fileno(), length, offset)


async def import_car(
    fetcher: Fetcher,
    path: Path,
    *,
    root: bytes | None = None,
    name: str | None = None,
    origin: Origin = Origin(),
    progress: OnProgress = lambda *_: None,
) -> FetchReport:
    """Makes a model of a CAR file be in the fetcher's store, as a fetch does it; `root` chooses one of several.

    Raises:
        AccelError: what `read_index`, `CarIndex.root` and `Fetcher.fetch` raise.
    """
    progress("indexing", 0, 0)
    index = await trio.to_thread.run_sync(read_index, path)
    source = CarSource(path, index)
    return await fetcher.fetch(index.root(root), [source], name=name, origin=origin, progress=progress)


def keep_stream(stream: BinaryIO, target: Path, on_bytes: OnBytes = lambda _count: None) -> None:
    """Writes what comes through a pipe into a new file, as long as every block is what its CID says.

    Raises:
        AccelError: corrupt-content, bad-input, disk-full.
    """
    with coded_errors(), target.open("xb") as file:
        reader = CarReader(stream)
        file.write(encode_header(reader.roots))
        for section in reader.sections():
            block = reader.read(section)
            if _digest(section) is not None and not matches(section.cid, block):
                raise AccelError(
                    ErrorCode.CORRUPT_CONTENT,
                    f"the block at byte {section.offset} is not what its CID {format_cid(section.cid)} says",
                    "Copy the CAR file here again.",
                )
            file.write(encode_section(section.cid, block))
            on_bytes(section.offset + section.length)


def _digest(section: Section) -> bytes | None:
    """None for a block that no model has: of another codec or hash."""
    try:
        return parts(section.cid).digest
    except AccelError:
        return None


def _is_folder(root: bytes) -> bool:
    try:
        return parts(root).codec == DAG_PB
    except AccelError:
        return False

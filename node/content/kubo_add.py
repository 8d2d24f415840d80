"""A model given to an IPFS daemon as the files that it is made of, for one that takes no CAR.

The daemon cuts the files up itself, by what its `add` is told: so it counts only when it comes to the model's own CID.
What it is told follows from how the model's files are cut here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from .cid import V0, format_cid, parts
from .contents import Contents
from .disk import coded_errors, read_at
from .kubo import IMPORT_S, Kubo
from .kubo_rpc import Options, Part, whole
from .leaves import BARE, FileEntry
from .profiles import Profile, possible_profiles

#: A daemon answers for each while it still reads: so many answers fit into a socket that nobody reads yet.
_MOST_ENTRIES: Final = 1000
_READ_AT_ONCE: Final = 1 << 20
_NAME: Final = "model"
_FOLDER: Final = "application/x-directory"
_LINK: Final = "application/symlink"


async def add_files(kubo: Kubo, contents: Contents, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Gives it a model's files, links and empty folders; `on_bytes` is told of what went there. It pins nothing.

    Raises:
        AccelError: too-large, bad-input for a model that no options of `add` give, kubo-failed when the daemon comes
            to another CID, kubo-….
    """
    options = _options(_profile(contents))
    paths = _with_folders([*(file.path for file in contents.files), *contents.links], contents.empty_folders)
    if len(paths) > _MOST_ENTRIES:
        raise AccelError(
            ErrorCode.TOO_LARGE,
            f"it has {len(paths)} files and folders, and {_MOST_ENTRIES} can be given one by one",
            "Publish it without --as-files, to a daemon that has dag/import.",
        )
    made = await _made(kubo, options, _parts(paths, contents, folder, on_bytes))
    if parts(made).digest != parts(contents.root).digest:
        raise kubo.rpc.failed(
            f"it made {format_cid(made)} of the files of {format_cid(contents.root)}",
            "It cuts files up in another way: publish without --as-files, to a daemon that has dag/import.",
        )


async def _made(kubo: Kubo, options: Options, sent: AsyncIterator[Part]) -> bytes:
    """The CID of the whole folder, which an answer that broke off lacks."""
    told: dict[str, Any] = {}

    def hear(event: dict[str, Any]) -> bool:
        if event.get("Name") == _NAME:
            told.update(event)
        return True

    await kubo.rpc.listen("add", options, IMPORT_S, hear, sent)
    return kubo.rpc.cid(kubo.rpc.text(told, "Hash"))


def _profile(contents: Contents) -> Profile:
    for profile in possible_profiles(contents.root):
        if all(_is_cut(file, profile) for file in contents.files):
            return profile
    raise AccelError(
        ErrorCode.BAD_INPUT,
        f"{format_cid(contents.root)} is made in a way that `ipfs add` is not told of",
        "Publish it without --as-files.",
    )


def _is_cut(file: FileEntry, profile: Profile) -> bool:
    return file.chunk == min(file.size, profile.chunk)


def _options(profile: Profile) -> dict[str, str]:
    return {
        "cid-version": "0" if profile.start == V0 else "1",
        "raw-leaves": "true" if profile.leaf == BARE else "false",
        "chunker": f"size-{profile.chunk}",
        "max-file-links": str(profile.width),
        "max-hamt-fanout": str(profile.fanout),
        "hash": "sha2-256",
        "hidden": "true",
        "pin": "false",
        "progress": "false",
        "recursive": "true",
    }


def _with_folders(paths: list[str], empty: list[str]) -> list[str]:
    """Everything in the order of a walk, each folder before what is in it; folders end in a slash."""
    folders = {f"{parent}/" for path in [*paths, *(f"{each}/x" for each in empty)] for parent in _parents(path)}
    return sorted({*paths, *folders}, key=lambda path: path.rstrip("/").split("/"))


def _parents(path: str) -> Iterator[str]:
    names = path.split("/")[:-1]
    return ("/".join(names[:end]) for end in range(1, len(names) + 1))


async def _parts(
    paths: list[str], contents: Contents, folder: Path, on_bytes: Callable[[int], None]
) -> AsyncIterator[Part]:
    sizes = {file.path: file.size for file in contents.files}
    yield Part(_NAME, kind=_FOLDER)
    for path in paths:
        there = f"{_NAME}/{path.rstrip('/')}"
        if path.endswith("/"):
            yield Part(there, kind=_FOLDER)
        elif path in contents.links:
            yield Part(there, whole(contents.links[path].encode()), _LINK)
        else:
            yield Part(there, _content(folder / path, sizes[path], on_bytes))


async def _content(path: Path, size: int, on_bytes: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Nothing stays open between two pieces, so it may be left at any of them."""
    for offset in range(0, size, _READ_AT_ONCE):
        yield await trio.to_thread.run_sync(_read, path, offset, min(_READ_AT_ONCE, size - offset))
        on_bytes(min(_READ_AT_ONCE, size - offset))


def _read(path: Path, offset: int, length: int) -> bytes:
    with coded_errors():
        return read_at(path, offset, length)

"""Folders around every boundary that a CID profile has, to be compared with what other importers make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ipfs_accel_node.node.content.profiles import PROFILES, Profile

#: By name: a file's size, a symbolic link's target, or a folder.
Tree = dict[str, Any]

#: A file's bytes differ this far; the rest are zeros, and take no disk.
_HEAD: Final = 64 << 10
#: Deep trees are for small numbers.
_TOO_MUCH: Final = 1 << 20
_NAME: Final = 20
#: Tag and length of a link, of its CID and its name, and the Tsize of one byte: dag-pb's own share of an entry.
_OF_A_LINK: Final = 2 + 2 + 2 + 2
#: A folder's block without entries.
_OF_A_FOLDER: Final = 4


def scaled(profile: Profile) -> Profile:
    """The same rules with small numbers, so that trees and shards grow deep."""
    return replace(profile, chunk=32, width=4, threshold=2000)


def cases(profile: Profile) -> Iterator[tuple[str, Tree]]:
    """Each with what it is about."""
    for size in sorted(set(_sizes(profile))):
        yield f"a file of {size} bytes", {"file": size}
    for off in (-1, 0, 1):
        yield f"{off:+} bytes to the threshold", folder_of(profile, profile.threshold + off)
    yield "names", {name: len(name) for name in _NAMES}
    yield "nested", {"a": {"b": {"c": {"d": 1}, "e": {}}, "void": {}}, "up": {"link": "../a/b/c/d", "to": "./link"}}
    yield "many entries", _many(profile)
    yield "shards in shards", {"outer": {**_many(profile), "inner": _many(profile)}, "link": "outer"}


def _sizes(profile: Profile) -> Iterator[int]:
    width, deep = profile.width, profile.width**3 * profile.chunk < _TOO_MUCH
    for chunks in (0, 1, 2, width, *((width - 1, width + 1, width**2, width**2 + width, width**3) if deep else ())):
        yield from (max(0, chunks * profile.chunk + off) for off in (-1, 0, 1))


def folder_of(profile: Profile, size: int) -> Tree:
    """A folder of one-byte files that takes exactly `size` bytes, as the profile counts them."""
    link = len(profile.leaf.start) + 32 + (_OF_A_LINK + 2 if profile.whole_block else 0)
    left = size - (_OF_A_FOLDER if profile.whole_block else 0)
    names = [_name(number, _NAME) for number in range((left - link - _NAME) // (link + _NAME))]
    return dict.fromkeys([*names, _name(-1, left - len(names) * (link + _NAME) - link)], 1)


def _many(profile: Profile) -> Tree:
    """Over the threshold by far: many hashes begin alike, and places have files, folders and links."""
    files: Tree = {_name(number, 40): number % 3 for number in range(profile.threshold // 60)}
    return {**files, **{f"folder {number}": {"x": number} for number in range(20)}, "link": _name(0, 40)}


def _name(number: int, length: int) -> str:
    return hashlib.shake_128(b"%d" % number).hexdigest(length)[:length]


_NAMES: Final = (
    *("a", "B", "b", "a.b", "a-b", "a b", "ab", "A", "aa", "Ab", "~", "0", "10", "9", "_", "(", "x" * 255),
    *("ä", "a\u0308", "ß", "Ω", "日本語", "🦆", "🦆a", "\uffee", "\U0001f986" * 60, "ﬀ", "\u200b", "résumé.txt"),
)


def write_tree(folder: Path, tree: Tree) -> Path:
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(folder / name, content)
        elif isinstance(content, str):
            (folder / name).symlink_to(content)
        else:
            _write_file(folder / name, content)
    return folder


def _write_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(hashlib.shake_128(b"%d" % size).digest(min(size, _HEAD)))
        file.truncate(size)


def all_profiles() -> list[Profile]:
    """Those there are, and each of them scaled."""
    return [each for profile in PROFILES.values() for each in (profile, scaled(profile))]

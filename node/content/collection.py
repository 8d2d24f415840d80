"""What has to go so that something else fits: pure choosing, and what a store holds besides its models.

Models that are pinned never go. Of the others those that were used longest ago go first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from ...protocols.errors import AccelError, ErrorCode
from .disk import SPARE

if TYPE_CHECKING:
    from .store import ModelStore

_MIB: Final = 1 << 20


class Evictable(Protocol):
    """A stored model, as far as choosing looks."""

    @property
    def name(self) -> str: ...
    @property
    def cid(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def last_used(self) -> float: ...
    @property
    def kept(self) -> bool: ...


Model = TypeVar("Model", bound=Evictable)


@dataclass(frozen=True)
class Room:
    """Bytes: what the store takes, what it may take (None: what the disk has), what is free on the disk."""

    used: int
    limit: int | None
    free: int

    @property
    def left(self) -> int:
        """How much more fits as things are."""
        free = max(0, self.free - SPARE)
        return free if self.limit is None else max(0, min(free, self.limit - self.used))

    @property
    def over(self) -> int:
        """How much more there is than the limit lets be."""
        return 0 if self.limit is None else max(0, self.used - self.limit)

    def lacking(self, size: int, on_disk: int = 0) -> int:
        """How much has to go before `size` bytes more fit, of which `on_disk` are there already."""
        over = 0 if self.limit is None else self.used + size - self.limit
        return max(0, over, size - on_disk - max(0, self.free - SPARE))


def oldest_first(models: Iterable[Model]) -> list[Model]:
    """Those that may go, in the order in which they go."""
    return sorted((model for model in models if not model.kept), key=lambda model: model.last_used)


@dataclass(frozen=True)
class Plan:
    """What a collection removes: models in that order, and converted forms whose models are gone."""

    models: list[Any]
    orphans: list[Path]

    def told(self, removed: Iterable[Evictable], *, freed: int, dry_run: bool) -> dict[str, Any]:
        """For whoever asked."""
        models = [{"cid": model.cid, "name": model.name, "size": model.size} for model in removed]
        return {"models": models, "leftovers": [path.name for path in self.orphans], "freed": freed, "dry_run": dry_run}


def plan(store: ModelStore, *, unpinned: bool) -> Plan:
    """Everything unpinned, or only as much as brings the store under its limit. Raises AccelError disk-full."""
    models = oldest_first(store.models())
    return Plan(models if unpinned else store.evictable(0, store.room().over), store.orphans())


def cannot_fit(size: int, lacking: int, kept: Iterable[Evictable]) -> AccelError:
    """Why there is no room, and what would make some."""
    named = ", ".join((model.name or model.cid[:14]) + f" ({_mebibytes(model.size)})" for model in kept)
    return AccelError(
        ErrorCode.DISK_FULL,
        f"{_mebibytes(size)} do not fit: {_mebibytes(lacking)} are lacking, and what is here is pinned or in use",
        f"Unpin or remove something ({named}), raise disk_limit, or move the data folder." if named else
        "Raise disk_limit, or move the data folder.",
    )  # fmt: skip


def folder_size(folder: Path) -> int:
    """Bytes of disk that it takes; 0 where there is none. What is still to be written into a file takes none."""
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.lstat().st_blocks * 512
        except OSError:  # it went away meanwhile
            continue
    return size


class DerivedForms:
    """The converted forms of models, each a folder in the cache whose name begins with its model's prefix."""

    def __init__(self, cache: Path, prefix_of: Callable[[str], str]) -> None:
        self._cache = cache
        self._prefix_of = prefix_of

    def size(self) -> int:
        return folder_size(self._cache)

    def remove(self, cid: str) -> int:
        """Removes a model's; the bytes that are free then."""
        return sum(map(_remove, self._cache.glob(f"{self._prefix_of(cid)}*")))

    def orphans(self, cids: Iterable[str]) -> list[Path]:
        """Those of models that are not among `cids`; nothing that is still being made."""
        prefixes = tuple(self._prefix_of(cid) for cid in cids)
        folders = self._cache.iterdir() if self._cache.is_dir() else ()
        return sorted(
            path for path in folders
            if path.is_dir() and path.suffix != ".tmp" and not (prefixes and path.name.startswith(prefixes))
        )  # fmt: skip


def remove_folders(folders: Iterable[Path]) -> int:
    """The bytes that are free then."""
    return sum(map(_remove, folders))


def _remove(folder: Path) -> int:
    size = folder_size(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return size


def _mebibytes(size: int) -> str:
    return f"{-(-size // _MIB)} MiB"

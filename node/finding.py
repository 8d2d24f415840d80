"""Models that other programs have left on this disk: caches of Hugging Face, sentence-transformers and torch hub.

Nothing in a cache is trusted, and nothing is changed: folders are listed within bounds, links are followed only from
a snapshot to its own blobs, headers and configurations are read as `model add` reads them. What a disk that does not
answer holds back is given up at a deadline, and what was found until then counts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from ..backends.interface import BackendError
from ..backends.loading import PICKLED, inspect
from ..protocols.errors import AccelError, ErrorCode
from .content.hub_files import has_pickles
from .content.local_folder import Folder, list_folder

DEADLINE_S: Final = 20.0
#: Looked at in each folder of a cache, and told of in all.
_MOST_ENTRIES: Final = 5_000
_MOST_FOUND: Final = 1_000
_BARE: Final = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_HUB: Final = "models--"


@dataclass(frozen=True)
class Cache:
    """A folder where a program keeps models: `kind` huggingface, sentence-transformers or torch."""

    kind: str
    path: Path


@dataclass(frozen=True)
class FoundModel:
    """A model in a cache.

    Attributes:
        size: bytes of what would be added; 0 where that is not known.
        can_add: whether `model add` would take it, with `convert` where that is set.
        task: what it could do here; empty when it could not be run.
        why_not: why it cannot be added, or not run.
    """

    name: str
    cache: str
    path: str
    revision: str = ""
    size: int = 0
    task: str = ""
    can_add: bool = False
    convert: bool = False
    why_not: str = ""


@dataclass
class Found:
    """What was found. `caches` says of each whether it was `searched`, `absent` or why not; `complete` whether all."""

    models: list[FoundModel] = field(default_factory=list)
    caches: list[dict[str, str]] = field(default_factory=list)
    complete: bool = True

    def as_dict(self) -> dict[str, Any]:
        models = sorted(self.models, key=lambda model: (model.name.lower(), model.path))
        return {**asdict(self), "models": [asdict(model) for model in models]}


def find_models(caches: list[Cache], name: str = "", *, deadline_s: float = DEADLINE_S) -> Found:
    """The models whose names contain `name`, whatever its case."""
    search = _Search(caches, name.lower(), time.monotonic() + deadline_s)
    # A thread that is left behind: nothing else gets away from a network disk that hangs.
    thread = threading.Thread(target=search.run, daemon=True)
    thread.start()
    thread.join(deadline_s)
    return search.result()


class _Search:
    def __init__(self, caches: list[Cache], name: str, until: float) -> None:
        self._caches = caches
        self._name = name
        self._until = until
        self._found = Found(complete=False)
        self._changing = threading.Lock()
        self._bounded = False

    def run(self) -> None:
        for cache in self._caches:
            state = self._searched(cache)
            with self._changing:
                self._found.caches.append({"kind": cache.kind, "path": str(cache.path), "state": state})
        with self._changing:
            self._found.complete = not self._bounded

    def result(self) -> Found:
        """A copy: the thread may go on."""
        with self._changing:
            return Found(list(self._found.models), list(self._found.caches), self._found.complete)

    def _searched(self, cache: Cache) -> str:
        try:
            if not cache.path.is_dir():
                return "absent"
            for model in self._models(cache):
                with self._changing:
                    self._found.models.append(model)
                    full = len(self._found.models) >= _MOST_FOUND
                if full or time.monotonic() > self._until:
                    self._bounded = True
                    break
        except (OSError, RuntimeError) as error:
            return f"cannot be read: {_in_words(error)}"
        return "searched"

    def _models(self, cache: Cache) -> Iterator[FoundModel]:
        if cache.kind == "torch":
            yield from self._bare_files(cache)
            return
        for entry in self._entries(cache.path):
            hub = entry.name.startswith(_HUB)
            name = entry.name.removeprefix(_HUB).replace("--", "/") if hub else entry.name
            if self._name not in name.lower() or not _is_folder(entry):
                continue
            if hub:
                yield from self._snapshots(cache, name, Path(entry.path))
            elif Path(entry.path, "config.json").is_file():
                yield _judged(cache, name.replace("_", "/", 1), Path(entry.path))

    def _snapshots(self, cache: Cache, name: str, folder: Path) -> Iterator[FoundModel]:
        try:
            entries = [entry for entry in self._entries(folder / "snapshots") if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            yield FoundModel(name, cache.kind, str(folder), why_not=f"it cannot be read: {_in_words(error)}")
            return
        for entry in entries:
            yield _judged(cache, name, Path(entry.path), entry.name)

    def _bare_files(self, cache: Cache) -> Iterator[FoundModel]:
        why = "a file of weights alone: nothing says what it is the weights of"
        for entry in self._entries(cache.path):
            if entry.name.endswith(_BARE) and self._name in entry.name.lower() and entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                yield FoundModel(entry.name, cache.kind, entry.path, size=size, why_not=why)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """In the order of their names, as many as there may be."""
        entries: list[os.DirEntry[str]] = []
        with os.scandir(folder) as every:
            for entry in every:
                if len(entries) >= _MOST_ENTRIES or time.monotonic() > self._until:
                    self._bounded = True
                    break
                entries.append(entry)
        return sorted(entries, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also by a link, as of people who keep a large model on another disk."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _judged(cache: Cache, name: str, folder: Path, revision: str = "") -> FoundModel:
    """What `model add` would say of the folder."""
    facts: dict[str, Any] = {"name": name, "cache": cache.kind, "path": str(folder), "revision": revision}
    try:
        listed = list_folder(folder)
        facts["size"] = listed.size()
        return FoundModel(**facts, task=inspect(folder).task, can_add=True)
    except BackendError as error:
        return _not_run(error, listed, facts)
    except AccelError as error:
        return FoundModel(**facts, why_not=error.message)
    except (OSError, RuntimeError) as error:
        return FoundModel(**facts, why_not=f"it cannot be read: {_in_words(error)}")


def _not_run(error: BackendError, listed: Folder, facts: dict[str, Any]) -> FoundModel:
    """Another node, or a later version, may run what this one cannot; pickles are converted first."""
    if error.code == ErrorCode.UNSUPPORTED_TASK:
        return FoundModel(**facts, can_add=True, why_not=error.message)
    if error.message == PICKLED and has_pickles(listed.files):
        return FoundModel(**facts, can_add=True, convert=True, why_not="its weights are pickles, to be converted first")
    return FoundModel(**facts, why_not=error.message)


def _in_words(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)

"""The model store: a finished folder is the store, and its files are never on disk twice.

    models/<cid>/…            the plain Hugging Face folder; leaf blocks are (file, offset, length) into it
    manifests/<cid>.manifest  its leaves' CIDs, its dag-pb blocks, its name
    partial/<cid>/…           what is being fetched
    adding/…                  what is being added or removed, cleared at every opening

A model is there when both its folder and its manifest are; the folder is renamed into place last. So a process that
is killed at any write leaves a whole model or none.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final
from uuid import uuid4

from ...protocols.errors import AccelError, ErrorCode
from . import names
from .cid import format_cid, matches
from .importer import Imported, import_folder, list_files
from .manifest import Manifest, read_manifest, write_manifest

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]

#: Disk space that is left alone, in bytes.
SPARE: Final = 64 << 20
_TOUCH_EVERY_S: Final = 60.0


@dataclass(frozen=True)
class StoredModel:
    """A model on this disk; `size` in bytes, times in seconds since 1970."""

    cid: str
    cid_bytes: bytes
    name: str
    path: Path
    size: int
    added_at: float
    last_used: float


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    length: int


class StoreLock:
    """Held by whoever writes the store: a running node, or a command while none runs."""

    def __init__(self, root: Path) -> None:
        self._path = root / "lock"
        self._descriptor = -1

    def __enter__(self) -> StoreLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AccelError(
                ErrorCode.ALREADY_RUNNING,
                f"another process uses {self._path.parent}",
                "Stop that node, or give this one its own --data-dir.",
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


class ModelStore:
    """Adds, finds, serves and removes models. Blocking: call it from a thread. Its methods may run concurrently."""

    def __init__(self, root: Path) -> None:
        self._models = root / "models"
        self._manifests = root / "manifests"
        self._partial = root / "partial"
        self._adding = root / "adding"
        self._writing = threading.Lock()
        self._stored: dict[bytes, StoredModel] = {}
        self._contents: dict[bytes, Manifest] = {}
        self._places: dict[bytes, _Place] = {}
        self._nodes: dict[bytes, bytes] = {}
        self._open()

    # --- finding

    def models(self) -> list[StoredModel]:
        return list(self._stored.values())

    def get(self, cid: bytes) -> StoredModel | None:
        return self._stored.get(cid)

    def resolve(self, text: str) -> StoredModel:
        """By name, CID or beginning of one. Raises AccelError unknown-model, ambiguous-model."""
        known = {cid: {model.name} if model.name else set() for cid, model in self._stored.items()}
        cid = names.resolve(text, known)
        if cid not in self._stored:
            raise AccelError(ErrorCode.UNKNOWN_MODEL, f"{text} is not in this store", "See `ipfs-accel-node model ls`.")
        return self._stored[cid]

    def read_block(self, cid: bytes) -> bytes | None:
        """A block of any stored model, verified; None when it is not here, or is damaged on disk."""
        if (node := self._nodes.get(cid)) is not None:
            return node
        place = self._places.get(cid)
        if place is None:
            return None
        try:
            block = _read(place)
        except OSError as error:
            log.error("%s cannot be read: %s", place.path, error)
            return None
        if not matches(cid, block):
            log.error("%s is damaged at byte %d; it is not served", place.path, place.offset)
            return None
        return block

    # --- changing

    def add(self, folder: Path, *, name: str | None = None, progress: OnProgress = lambda *_: None) -> StoredModel:
        """Copies a folder in while hashing it. Adding it again only changes the name that is given.

        Raises:
            AccelError: bad-input, too-large, disk-full, permission-denied.
        """
        total = sum(path.stat().st_size for _, path in list_files(folder))
        self.check_space(total)
        temporary = self._adding / uuid4().hex
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            progress("adding", done, total)

        with _coded_disk_errors(), _removed(temporary):
            temporary.mkdir(parents=True)
            imported = import_folder(folder, temporary, count)
            return self.adopt(temporary, imported, name)

    def adopt(self, folder: Path, imported: Imported, name: str | None) -> StoredModel:
        """Makes a complete folder a model: on disk for good, whole or not at all."""
        with _coded_disk_errors(), self._writing:
            manifest = Manifest(imported.root, name or "", time.time(), time.time(), imported.files, imported.nodes)
            if (kept := self._contents.get(imported.root)) is not None:
                manifest.added_at = kept.added_at
                manifest.name = name or kept.name
            _sync_tree(folder)
            write_manifest(self._manifest_path(imported.root), manifest)
            target = self._models / format_cid(imported.root)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder, target)
                _sync(target.parent)
            return self._index(manifest)

    def remove(self, cid: bytes) -> None:
        """Removes a model at once; its space is free when this returns."""
        with self._writing:
            trash = self._adding / uuid4().hex
            self._adding.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.rename(self._models / format_cid(cid), trash)
            self._manifest_path(cid).unlink(missing_ok=True)
            self._forget(cid)
        shutil.rmtree(trash, ignore_errors=True)

    def touch(self, cid: bytes) -> None:
        """Notes that a model was used; on disk about once a minute."""
        manifest = self._contents.get(cid)
        if manifest is None:
            return
        now = time.time()
        if now - manifest.last_used > _TOUCH_EVERY_S:
            manifest.last_used = now
            self._index(manifest)
            write_manifest(self._manifest_path(cid), manifest)

    def partial(self, cid: bytes) -> Path:
        """Where a fetch of `cid` puts what it has; it stays there until the model is whole."""
        folder = self._partial / format_cid(cid)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def check_space(self, size: int) -> None:
        """Raises AccelError disk-full when `size` bytes more would not fit."""
        self._models.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._models).free
        if free < size + SPARE:
            raise AccelError(
                ErrorCode.DISK_FULL,
                f"{size >> 20} MiB are needed and {max(0, free - SPARE) >> 20} MiB are free in {self._models}",
                "Remove a model (`ipfs-accel-node model rm`) or move the data folder.",
            )

    # --- inside

    def _open(self) -> None:
        shutil.rmtree(self._adding, ignore_errors=True)
        self._models.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._manifests.glob("*.manifest")):
            self._open_one(path)
        for folder in self._models.iterdir():
            if not any(model.path == folder for model in self._stored.values()):
                log.warning("clearing away %s, which is no whole model", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _open_one(self, path: Path) -> None:
        try:
            manifest = read_manifest(path)
            if path.name == f"{format_cid(manifest.root)}.manifest" and self._is_whole(manifest):
                self._index(manifest)
                return
        except (AccelError, OSError) as error:
            log.warning("%s cannot be read: %s", path, error)
        path.unlink(missing_ok=True)

    def _is_whole(self, manifest: Manifest) -> bool:
        folder = self._models / format_cid(manifest.root)
        return all(
            (folder / file.path).is_file() and (folder / file.path).stat().st_size == file.size
            for file in manifest.files
        )

    def _index(self, manifest: Manifest) -> StoredModel:
        cid = format_cid(manifest.root)
        folder = self._models / cid
        for file in manifest.files:
            for number, leaf in enumerate(file.leaves):
                offset = number * file.chunk
                self._places[leaf] = _Place(folder / file.path, offset, min(file.chunk, file.size - offset))
        self._nodes.update(manifest.nodes)
        self._contents[manifest.root] = manifest
        stored = StoredModel(
            cid, manifest.root, manifest.name, folder, manifest.size, manifest.added_at, manifest.last_used
        )
        self._stored[manifest.root] = stored
        return stored

    def _forget(self, cid: bytes) -> None:
        """Drops a model from the index, and puts back what others share with it."""
        self._stored.pop(cid, None)
        self._contents.pop(cid, None)
        self._places, self._nodes = {}, {}
        for manifest in list(self._contents.values()):
            self._index(manifest)

    def _manifest_path(self, cid: bytes) -> Path:
        return self._manifests / f"{format_cid(cid)}.manifest"


def _read(place: _Place) -> bytes:
    descriptor = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, place.length, place.offset)
    finally:
        os.close(descriptor)


@contextmanager
def _removed(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _coded_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AccelError(ErrorCode.DISK_FULL, f"the disk is full: {error}", "Make room and try again.") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccelError(ErrorCode.PERMISSION_DENIED, str(error), "Check who owns these files.") from None
        raise


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

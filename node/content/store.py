"""The model store: a finished folder is the store, and its files are never on disk twice.

    models/<cid>/…            the plain Hugging Face folder; leaf blocks are (file, offset, length) into it
    manifests/<cid>.contents  its leaves' digests and its dag-pb nodes: never changes
    manifests/<cid>.json      its name and times, and whether it is pinned
    partial/<cid>/…           what is being fetched, or has to be
    adding/…                  what is being added or removed, cleared at every opening
    lock                      held by the process that writes here

A model is there when its folder is: its contents are written first, the whole folder is renamed into place last.
So a process that is killed at any write leaves a whole model or none.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from . import names
from .car_export import export_file, pieces
from .cid import format_cid
from .collection import DerivedForms, Room, cannot_fit, folder_size, oldest_first
from .contents import Contents
from .disk import OnProgress, can_clone, coded_errors, sync, sync_tree, write_whole
from .importer import import_listed
from .index import BlockIndex, checked_files
from .layout import Label, Layout
from .layout import Origin as Origin
from .local_folder import Folder, list_folder
from .lock import StoreLock as StoreLock
from .profiles import DEFAULT, Profile
from .stored_model import StoredModel as StoredModel

_TOUCH_EVERY_S: Final = 60.0


class ModelStore:
    """Adds, finds, serves and removes models. Blocking: call it from a thread. Its methods may run concurrently.

    One process at a time opens a store: hold its `StoreLock` meanwhile.
    """

    def __init__(self, root: Path, *, limit: int | None = None, derived: DerivedForms | None = None) -> None:
        """`limit` bounds what it holds, converted forms included, in bytes; None is what the disk has."""
        self._layout = Layout(root)
        self._limit = limit
        self._derived = derived
        self._damaged: dict[bytes, list[str]] = {}
        self._changing = threading.Lock()
        self._stored: dict[bytes, StoredModel] = {}
        self._contents: dict[bytes, Contents] = {}
        self._index = BlockIndex()
        with coded_errors():
            self._open()

    # --- finding

    def models(self) -> list[StoredModel]:
        return list(self._stored.values())

    def get(self, cid: bytes) -> StoredModel | None:
        return self._stored.get(cid)

    def resolve(self, text: str) -> StoredModel:
        """By name, CID or beginning of one. Raises AccelError unknown-model, ambiguous-model."""
        known = {model.cid_bytes: {model.name} if model.name else set() for model in self.models()}
        return self._require(names.resolve(text, known))

    def contents(self, cid: bytes) -> Contents:
        """What a model is made of, not to be changed. Raises AccelError unknown-model."""
        return self._contents[self._require(cid).cid_bytes]

    def read_block(self, cid: bytes) -> bytes | None:
        """A block of any stored model, verified; None when it is not here, or is damaged on disk."""
        return self._index.read(cid)

    def is_open(self, cid: bytes) -> bool:
        """Whether a block may go to anybody: a model that is not gated has it. Quick enough for an event loop."""
        return self._index.is_open(cid)

    def verify(self, cid: bytes, progress: OnProgress = lambda *_: None) -> list[str]:
        """Reads a whole model again: which of its files no longer have the bytes that its CID says.

        It is remembered until the model is mended, which `add` and a fetch do. An exception out of `progress`
        ("verifying", done bytes, total bytes) stops it.
        """
        contents = self._contents.get(cid)
        if contents is None:
            return []
        done, damaged = 0, []
        for path, size, sound in checked_files(self._layout.model(cid), contents):
            done += size
            damaged += [] if sound else [path]
            progress("verifying", done, contents.size)
        self._note_damage(cid, damaged)
        return damaged

    @property
    def damaged(self) -> dict[bytes, list[str]]:
        """What `verify` found and nobody has mended: model → its damaged files."""
        return dict(self._damaged)

    def export(self, cid: bytes, target: Path, progress: OnProgress = lambda *_: None) -> int:
        """Writes a model into a new CAR file; see `car_export.export_file`."""
        return export_file(self._layout.root, cid, target, progress)

    def car(self, cid: bytes, progress: OnProgress = lambda *_: None) -> Iterator[bytes]:
        """The same in parts, a block each; see `car_export.pieces`."""
        return pieces(self._layout.root, cid, progress)

    def room(self) -> Room:
        """What there is and what is taken."""
        taken = self._taken()
        with coded_errors():
            return Room(sum(taken.values()), self._limit, shutil.disk_usage(self._layout.models).free)

    def usage(self) -> dict[str, int | None]:
        """Bytes by what takes them, the limit (None: the disk), and what is free on the disk."""
        taken = self._taken()
        with coded_errors():
            free = shutil.disk_usage(self._layout.models).free
        pinned = sum(model.size for model in self.models() if model.kept)
        return {**taken, "pinned": pinned, "limit": self._limit, "free": free}

    def orphans(self) -> list[Path]:
        """Converted forms of models that are not here any more."""
        return self._derived.orphans(model.cid for model in self.models()) if self._derived else []

    # --- changing

    def add(
        self,
        folder: Path,
        *,
        name: str | None = None,
        origin: Origin = Origin(),
        take: bool = False,
        profile: Profile = DEFAULT,
        progress: OnProgress = lambda *_: None,
    ) -> StoredModel:
        """Copies a folder in while hashing it. Adding it again gives it the new name and mends what was damaged.

        An exception out of `progress` (state, done bytes, total bytes) stops it; nothing is left then.

        Args:
            take: move the folder instead, where it lies on the same disk. It has to be the caller's to give away.

        Raises:
            AccelError: bad-input, too-large, disk-full, permission-denied.
        """
        given = names.checked(name) if name else ""
        with coded_errors(), _removed(self._layout.scratch()) as temporary:
            listed = list_folder(folder)
            total, done = listed.size(), 0
            moves = take and self._is_near(folder)
            self.check_space(total, self._shared(listed, total, moves=moves))

            def count(size: int) -> None:
                nonlocal done
                done += size
                progress("adding", done, total)

            contents = import_listed(listed, None if moves else temporary, count, profile=profile)
            progress("storing", total, total)
            return self.adopt(folder if moves else temporary, contents, given, origin)

    def adopt(self, folder: Path, contents: Contents, name: str | None, origin: Origin = Origin()) -> StoredModel:
        """Makes a complete folder a model: on disk for good, whole or not at all. The folder is moved away.

        Raises:
            AccelError: disk-full, permission-denied.
        """
        cid = contents.root
        with coded_errors(), _removed(self._layout.scratch()) as aside:
            sync_tree(folder)
            keep_old = cid in self._stored and not self.verify(cid)
            if not keep_old:
                write_whole(self._layout.contents(cid), contents.pack())
            with self._changing:
                label = _label(self._stored.get(cid), names.usable(name), origin)
                self._layout.write_label(cid, label)
                if not keep_old:
                    self._place(cid, folder, aside)
                was_open = cid in self._stored and not self._stored[cid].label.gated
                if cid not in self._contents:
                    self._contents[cid] = contents
                    self._index.add(self._layout.model(cid), contents, is_open=not label.gated)
                self._damaged.pop(cid, None)
                stored = self._remember(cid, label)
                if was_open and label.gated:
                    self._reindex()
                return stored

    def rename(self, cid: bytes, name: str) -> StoredModel:
        """Gives a model another name; an empty one takes it away. Raises AccelError unknown-model, bad-input."""
        given = names.checked(name) if name else ""
        with coded_errors(), self._changing:
            old = self._require(cid)
            return self._relabel(cid, replace(old.label, name=given))

    def pin(self, cid: bytes, *, pinned: bool) -> StoredModel:
        """Keeps a model from being removed, or no longer. Raises AccelError unknown-model."""
        with coded_errors(), self._changing:
            old = self._require(cid)
            return self._relabel(cid, replace(old.label, pinned=pinned))

    def share(self, cid: bytes, *, shared: bool) -> StoredModel:
        """Notes that the cluster's pins want a model on this node, or no longer. Raises AccelError unknown-model."""
        with coded_errors(), self._changing:
            return self._relabel(cid, replace(self._require(cid).label, shared=shared))

    def check_removable(self, cid: bytes) -> None:
        """Raises AccelError unknown-model, model-pinned."""
        model = self._require(cid)
        called = model.name or model.cid
        if model.pinned:
            raise AccelError(
                ErrorCode.MODEL_PINNED, f"{called} is pinned on this node", f"Unpin it: ipfs-accel-node pin rm {called}"
            )
        if model.shared:
            raise AccelError(
                ErrorCode.MODEL_PINNED,
                f"{called} is pinned by the cluster, and this node holds it",
                f"Unpin it everywhere: ipfs-accel-node pin rm {called} --cluster",
            )

    def remove(self, cid: bytes) -> None:
        """Removes a model at once: its space is free when this returns. Raises what `check_removable` raises."""
        with coded_errors(), _removed(self._layout.scratch()) as trash:
            with self._changing:
                self.check_removable(cid)
                os.rename(self._layout.model(cid), trash)
                sync(self._layout.models)
                self._layout.contents(cid).unlink(missing_ok=True)
                self._layout.label(cid).unlink(missing_ok=True)
                del self._stored[cid], self._contents[cid]
                self._damaged.pop(cid, None)
                self._reindex()
            shutil.rmtree(self._layout.partial(cid), ignore_errors=True)
            if self._derived is not None:
                self._derived.remove(format_cid(cid))

    def evictable(self, size: int, lacking: int) -> list[StoredModel]:
        """Those to remove, in that order, to free `lacking` bytes for `size`. Raises AccelError disk-full."""
        chosen: list[StoredModel] = []
        for model in oldest_first(self.models()):
            if lacking <= 0:
                break
            chosen.append(model)
            lacking -= model.size
        if lacking > 0:
            raise cannot_fit(size, lacking, self.models())
        return chosen

    def touch(self, cid: bytes) -> None:
        """Notes that a model was used; on disk about once a minute. Quick enough for an event loop."""
        model, now = self._stored.get(cid), time.time()
        if model is None or now - model.last_used <= _TOUCH_EVERY_S:
            return
        if self._changing.acquire(blocking=False):  # else a later use will be noted
            try:
                self._note_use(cid, now)
            finally:
                self._changing.release()

    def partial(self, cid: bytes) -> Path:
        """Where a fetch of `cid` puts what it has; it stays there until the model is whole."""
        folder = self._layout.partial(cid)
        with coded_errors():
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
        return folder

    def check_space(self, size: int, on_disk: int = 0) -> None:
        """Raises AccelError disk-full when `size` bytes more would not fit, of which `on_disk` are there already."""
        if lacking := self.room().lacking(size, on_disk):
            raise cannot_fit(size, lacking, self.models())

    def size_to_add(self, folder: Path, *, take: bool = False) -> tuple[int, int]:
        """What adding a folder takes, and how much of that is on the store's disk already, in bytes.

        Raises:
            AccelError: bad-input, too-large.
        """
        with coded_errors():
            listed = list_folder(folder)
            size = listed.size()
            return size, self._shared(listed, size, moves=take and self._is_near(folder))

    # --- inside

    def _taken(self) -> dict[str, int]:
        """Bytes by what takes them; it looks through the folders of what is half fetched and of converted forms."""
        with coded_errors():
            return {
                "models": sum(model.size for model in self.models()),
                "partial": folder_size(self._layout.partials),
                "derived": self._derived.size() if self._derived else 0,
            }

    def _open(self) -> None:
        self._layout.clear()
        for cid in self._layout.stored():
            contents = self._layout.read_contents(cid) or self._layout.recover(cid)
            if contents is not None:
                self._contents[cid] = contents
                stored = self._remember(cid, self._layout.read_label(cid))
                self._index.add(stored.path, contents, is_open=not stored.label.gated)

    def _is_near(self, folder: Path) -> bool:
        """Whether it lies on the store's own disk, so that it can be moved."""
        return folder.stat().st_dev == self._layout.adding.stat().st_dev

    def _shared(self, listed: Folder, total: int, *, moves: bool) -> int:
        """How much of a folder needs no disk, because it is moved or cloned."""
        largest = max(listed.all_files(), key=lambda path: path.stat().st_size)
        return total if moves or can_clone(largest, self._layout.adding) else 0

    def _place(self, cid: bytes, folder: Path, aside: Path) -> None:
        """Renames the folder to its place; a damaged one that lies there goes first."""
        target = self._layout.model(cid)
        if target.exists():
            os.rename(target, aside)
        os.rename(folder, target)
        sync(target.parent)

    def _note_use(self, cid: bytes, now: float) -> None:
        model = self._stored.get(cid)
        if model is not None:
            label = replace(model.label, last_used=now)
            with coded_errors():
                self._layout.write_label(cid, label, synced=False)
            self._remember(cid, label)

    def _relabel(self, cid: bytes, label: Label) -> StoredModel:
        self._layout.write_label(cid, label)
        return self._remember(cid, label)

    def _remember(self, cid: bytes, label: Label) -> StoredModel:
        model = StoredModel(format_cid(cid), cid, self._layout.model(cid), self._contents[cid].size, label)
        self._stored[cid] = model
        return model

    def _note_damage(self, cid: bytes, files: list[str]) -> None:
        if files:
            self._damaged[cid] = files
        else:
            self._damaged.pop(cid, None)

    def _reindex(self) -> None:
        """Replaces the index whole, so that a reader in another thread sees the old one or the new one."""
        index = BlockIndex()
        for cid, contents in self._contents.items():
            index.add(self._layout.model(cid), contents, is_open=not self._stored[cid].label.gated)
        self._index = index

    def _require(self, cid: bytes) -> StoredModel:
        model = self._stored.get(cid)
        if model is None:
            raise AccelError(
                ErrorCode.UNKNOWN_MODEL, f"{format_cid(cid)} is not in this store", "See `ipfs-accel-node model ls`."
            )
        return model


def _label(old: StoredModel | None, name: str, origin: Origin) -> Label:
    """What is said now counts; a gated model stays gated, whoever adds it again."""
    now = time.time()
    label = Label("", now, now) if old is None else old.label
    return replace(
        label,
        name=name or label.name,
        last_used=now,
        origin=origin.origin or label.origin,
        license=origin.license or label.license,
        gated=origin.gated or label.gated,
    )


@contextmanager
def _removed(folder: Path) -> Iterator[Path]:
    """A path for something passing, removed with all that is in it on leaving."""
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

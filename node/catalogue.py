"""The models of the cluster as this node knows them: those here, those its peers advertise, and the way between.

Every path to a model's name, its files or its fetch goes through here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import trio

from ..backends.conversion import derived_prefix
from ..protocols.errors import AccelError, ErrorCode
from .config import Paths
from .content import names
from .content.car_source import import_car
from .content.cid import format_cid
from .content.collection import DerivedForms, cannot_fit, oldest_first
from .content.fetch import Fetcher, FetchReport
from .content.profiles import DEFAULT, Profile
from .content.store import ModelStore, Origin, StoredModel
from .fetch_sources import FetchSources, Found
from .judging import Verdict, judge
from .known_model import KnownModel as KnownModel
from .mesh.mesh import Mesh
from .pace import Pace
from .serving.service import ServingService

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, str], None]
_PROGRESS_EVERY_S = 0.1
FetchProgress = Callable[[str, int, int], None]
#: What the peers came to, that others may do better.
_WORTH_LOOKING_ON = frozenset({ErrorCode.CONTENT_NOT_FOUND, ErrorCode.CORRUPT_CONTENT})


def open_store(paths: Paths, limit: int | None = None) -> ModelStore:
    """The store of a data folder, which knows of its models' converted forms."""
    return ModelStore(paths.content, limit=limit, derived=DerivedForms(paths.cache, derived_prefix))


class Catalogue:
    """Names, adds, fetches, lists and removes models. One of it a node."""

    def __init__(
        self,
        store: ModelStore,
        serving: ServingService,
        mesh: Mesh,
        sources: FetchSources,
        on_change: Callable[[], None],
    ) -> None:
        self._store = store
        self._sources = sources
        self._serving = serving
        self._mesh = mesh
        self._fetcher = Fetcher(store, self.make_room)
        self._on_change = on_change
        #: Told of each model that came into the store.
        self.on_added: Callable[[StoredModel], None] = lambda _: None
        self._verdicts: dict[bytes, Verdict] = {}

    def known(self) -> dict[bytes, KnownModel]:
        """Every model of the cluster by binary CID; those here first, the most recently used first."""
        found: dict[bytes, KnownModel] = {}
        for stored in self.here():
            found[stored.cid_bytes] = KnownModel(
                stored.cid_bytes, _names(stored.name), stored.size, self.task_of(stored), stored
            )
        for peer in self._mesh.directory.peers():
            for info in peer.models:
                model = found.setdefault(info.cid, KnownModel(info.cid, size=info.size, task=info.task))
                model.names |= _names(info.name)
                model.holders.add(peer.peer_id)
        return found

    def here(self) -> list[StoredModel]:
        return sorted(self._store.models(), key=lambda model: model.last_used, reverse=True)

    def size(self, cid: bytes) -> int | None:
        """Bytes of a model that is here, None for one that is not."""
        stored = self._store.get(cid)
        return stored.size if stored else None

    def damaged(self, cid: bytes) -> list[str]:
        """The files of a model here that `repo verify` found damaged and nobody has mended."""
        return self._store.damaged.get(cid, [])

    def resolve(self, text: str) -> bytes:
        """The binary CID of a name, a CID, or a prefix of one of at least eight characters.

        Raises:
            AccelError: unknown-model, or ambiguous-model with every CID that is meant.
        """
        return names.resolve(text, {cid: model.names for cid, model in self.known().items()})

    def task_of(self, stored: StoredModel) -> str:
        """The task a stored folder is for; empty when it is not a model this version can run."""
        return self._judge(stored).task

    def why_not(self, stored: StoredModel) -> str:
        """Why it has no task, for a person; empty when it has one."""
        return self._judge(stored).why_not

    def namesakes(self, stored: StoredModel) -> list[str]:
        """The CIDs of the other models of the cluster that are called the same."""
        others = self.known().items()
        return [format_cid(cid) for cid, model in others if cid != stored.cid_bytes and stored.name in model.names]

    def _judge(self, stored: StoredModel) -> Verdict:
        if stored.cid_bytes not in self._verdicts:
            verdict = self._verdicts[stored.cid_bytes] = judge(stored.path)
            if verdict.why_not:
                log.warning("%s cannot be run: %s", stored.name or stored.cid, verdict.why_not)
        return self._verdicts[stored.cid_bytes]

    def mismatch(self, cid: bytes, task: str) -> AccelError | None:
        """Why nobody in the cluster can do `task` with the model, as far as that is the model's own matter."""
        model = self.known().get(cid)
        if model is None:
            return AccelError(
                ErrorCode.UNKNOWN_MODEL,
                f"nobody in the cluster has {format_cid(cid)}",
                "Start the node that has it, or add it: ipfs-accel-node model add FOLDER",
            )
        name = model.name or format_cid(cid)
        if model.here and not model.task:
            return AccelError(ErrorCode.UNSUPPORTED_TASK, f"{name} cannot be run: {self.why_not(model.here)}")
        if model.task and model.task != task:
            return AccelError(ErrorCode.UNSUPPORTED_TASK, f"{name} does {model.task}, not {task}")
        return None

    async def add(
        self,
        path: str,
        name: str | None,
        *,
        origin: Origin = Origin(),
        take: bool = False,
        profile: Profile = DEFAULT,
        on_progress: OnProgress,
    ) -> StoredModel:
        """Imports a folder and begins to load and measure it. Raises AccelError."""
        await self.make_room(*await trio.to_thread.run_sync(partial(self._store.size_to_add, Path(path), take=take)))
        report = from_thread(on_progress)
        adding = partial(
            self._store.add, Path(path), name=name, origin=origin, take=take, profile=profile, progress=report
        )
        stored = await trio.to_thread.run_sync(adding, abandon_on_cancel=False)
        self._arrived(stored)
        self.on_added(stored)
        return stored

    async def get(
        self, cid: bytes, name: str | None, *, ipfs_peers: Sequence[str] = (), on_progress: OnProgress
    ) -> dict[str, Any]:
        """Fetches a model from the peers that advertise it, and from the IPFS peers at these addresses.

        Raises AccelError content-not-found and others.
        """
        model = self.known().get(cid) or KnownModel(cid)
        if model.here and not self.damaged(cid):
            return {"already": True, "seconds": 0.0, "by_source": {}, **model.here.as_dict()}
        progress, wanted = _with_pace(on_progress), name or model.name or None
        async with self._sources.of(model, ipfs_peers) as found:
            return self._fetched(await self._fetch(cid, wanted, found, progress))

    async def _fetch(self, cid: bytes, name: str | None, found: Found, progress: FetchProgress) -> FetchReport:
        fetching = partial(self._fetcher.fetch, cid, name=name, origin=found.origin, progress=progress)
        try:
            return await fetching(found.first)
        except AccelError as error:
            if not found.later or error.code not in _WORTH_LOOKING_ON:
                raise
            log.info("%s is looked for outside the cluster: %s", format_cid(cid), error.message)
        return await fetching(found.later)

    async def import_car(
        self, path: Path, name: str | None, *, root: bytes | None, origin: Origin, on_progress: OnProgress
    ) -> dict[str, Any]:
        """Takes a model out of a CAR file on this machine. Raises what `car_source.import_car` raises."""
        report = await import_car(
            self._fetcher, path, root=root, name=name, origin=origin, progress=_without_note(on_progress)
        )
        return self._fetched(report)

    async def export_car(self, text: str, path: Path, *, on_progress: OnProgress) -> dict[str, Any]:
        """Writes a model into a new CAR file on this machine. Raises what `resolve` and `car_export` raise."""
        stored = self.require_here(text)
        exporting = partial(self._store.export, stored.cid_bytes, path, from_thread(on_progress))
        written = await trio.to_thread.run_sync(exporting, abandon_on_cancel=False)
        return {**stored.as_dict(), "path": str(path), "written": written}

    def _fetched(self, report: FetchReport) -> dict[str, Any]:
        stored = self._store.get(report.cid)
        if stored is None:
            raise AccelError(ErrorCode.CONTENT_NOT_FOUND, f"{format_cid(report.cid)} went away while it was fetched")
        self._arrived(stored)
        if not report.already:
            self.on_added(stored)
        return {
            "already": report.already,
            "seconds": report.seconds,
            "by_source": dict(report.by_source),
            **stored.as_dict(),
        }

    async def make_room(self, size: int, on_disk: int = 0) -> None:
        """Removes unpinned models that no job uses, those used longest ago first, until `size` bytes more fit.

        Raises:
            AccelError: disk-full.
        """
        lacking = (await trio.to_thread.run_sync(self._store.room)).lacking(size, on_disk)
        if lacking:
            self._store.evictable(size, lacking)  # nothing goes where that would not be enough
            lacking -= await self._evict(lacking)
        if lacking > 0:
            raise cannot_fit(size, lacking, self._store.models())

    async def _evict(self, lacking: int) -> int:
        """The bytes that are free then."""
        freed = 0
        for model in oldest_first(self._store.models()):
            if freed >= lacking:
                break
            freed += await self.remove_unused(model)
        return freed

    async def remove_unused(self, model: StoredModel) -> int:
        """The bytes that are free then; none when a job uses it, or it was pinned meanwhile."""
        try:
            removed = await self.remove(model.cid)
        except AccelError as error:
            log.info("%s stays: %s", model.name or model.cid, error)
            return 0
        log.info("%s was removed to make room", model.name or model.cid)
        return int(removed["freed"])

    async def ensure_here(self, cid: bytes, *, on_progress: OnProgress) -> None:
        """Fetches the model when it is not here; a job of this node's own owner may do that."""
        if self._store.get(cid) is None or self.damaged(cid):
            await self.get(cid, None, on_progress=on_progress)
        self._store.touch(cid)

    async def pin(self, text: str, *, on_progress: OnProgress) -> StoredModel:
        """Keeps a model on this node; one that is known but not here is fetched first. Raises AccelError."""
        cid = self.resolve(text)
        await self.ensure_here(cid, on_progress=on_progress)
        return await trio.to_thread.run_sync(partial(self._store.pin, cid, pinned=True))

    async def unpin(self, text: str) -> StoredModel:
        stored = self.require_here(text)
        return await trio.to_thread.run_sync(partial(self._store.pin, stored.cid_bytes, pinned=False))

    async def remove(self, text: str) -> dict[str, Any]:
        """Raises AccelError model-pinned, model-in-use, and what `resolve` raises."""
        stored = self.require_here(text)
        self._store.check_removable(stored.cid_bytes)
        await self._serving.unload(stored.cid_bytes)
        await trio.to_thread.run_sync(self._store.remove, stored.cid_bytes)
        self._verdicts.pop(stored.cid_bytes, None)
        self._on_change()
        return {"cid": stored.cid, "name": stored.name, "freed": stored.size}

    def require_here(self, text: str) -> StoredModel:
        cid = self.resolve(text)
        stored = self._store.get(cid)
        if stored is None:
            raise AccelError(
                ErrorCode.MODEL_NOT_HERE,
                f"{text} is known but not on this node",
                f"Fetch it: ipfs-accel-node model get {text}",
            )
        return stored

    def warm_all(self) -> None:
        """Begins to load what is here and can be run, the most recently used first."""
        for stored in self.here():
            if task := self.task_of(stored):
                self._serving.want(stored.cid_bytes, task)

    def _arrived(self, stored: StoredModel) -> None:
        if task := self.task_of(stored):
            self._serving.want(stored.cid_bytes, task)
        self._on_change()


def _names(name: str | None) -> set[str]:
    return {name} if name else set()


def _with_pace(on_progress: OnProgress) -> Callable[[str, int, int], None]:
    """Adds how fast the bytes come, and how long the rest will take."""
    pace = Pace()

    def report(state: str, done: int, total: int) -> None:
        note = pace.note(state, done, total, monotonic()) if state == "fetching" else ""
        on_progress(state, done, total, note)

    return report


def _without_note(on_progress: OnProgress) -> Callable[[str, int, int], None]:
    return lambda state, done, total: on_progress(state, done, total, "")


def from_thread(on_progress: OnProgress) -> Callable[[str, int, int], None]:
    """Carries progress from a worker thread to the event loop, seldom enough not to burden it.

    It ends the work when the task that waits for the thread is cancelled.
    """
    token = trio.lowlevel.current_trio_token()
    last = 0.0
    last_state = ""

    def report(state: str, done: int, total: int) -> None:
        nonlocal last, last_state
        trio.from_thread.check_cancelled()
        now = monotonic()
        if state != last_state or done >= total or now - last >= _PROGRESS_EVERY_S:
            last, last_state = now, state
            token.run_sync_soon(on_progress, state, done, total, "")

    return report

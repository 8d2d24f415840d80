"""Models that live at the IPFS daemon too, where peers of IPFS find them: given to it, pinned there, taken back.

    model publish ─► a CAR of the model, block by block ─► dag/import ─► pin/add ─► noted in published.json
                     or, --as-files, file by file ─► add                             ─► routing/provide
    model unpublish ─► pin/rm, of what is noted there and of nothing else

A gated model is never given away; a peer that one is fetched from says whether it is. With `kubo_publish` what comes
into the store is published by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio

from ..protocols.errors import AccelError, ErrorCode
from .catalogue import Catalogue, OnProgress, from_thread
from .config import Config
from .content.cid import format_cid, parse_cid
from .content.disk import coded_errors, write_whole
from .content.kubo import IMPORT_S, Kubo
from .content.kubo_add import add_files
from .content.kubo_address import parse_kubo
from .content.kubo_routing import provide
from .content.store import ModelStore, StoredModel

log = logging.getLogger(__name__)

_WAITING: Final = 256
_STATUS_S: Final = 5.0
#: How long another publishing is waited for.
_PATIENCE_S: Final = 60.0


class Publisher:
    """Gives models of one node to its daemon, and says how that daemon is."""

    def __init__(self, config: Config, store: ModelStore, catalogue: Catalogue) -> None:
        self._address = config.kubo
        self._authorization = config.kubo_auth
        self._store = store
        self._catalogue = catalogue
        self._noted = _Noted(config.paths.published)
        self._one_at_a_time = trio.Lock()
        self._offered, self._waiting = trio.open_memory_channel[bytes](_WAITING)
        if config.kubo and config.kubo_publish:
            catalogue.on_added = self._offer

    async def run(self) -> None:
        """Publishes what is offered; what fails is logged, and can be published by hand."""
        async for cid in self._waiting:
            try:
                await self.publish(format_cid(cid), patience_s=IMPORT_S, on_progress=lambda *_: None)
            except AccelError as error:
                log.warning("%s is not published: %s", format_cid(cid), error)

    async def publish(
        self, text: str, *, as_files: bool = False, patience_s: float = _PATIENCE_S, on_progress: OnProgress
    ) -> dict[str, Any]:
        """Gives a model to the daemon, pins it there, and has the daemon provide it, which may fail: `provide_error`.

        Args:
            as_files: for a daemon that takes no CAR.
            patience_s: how long to wait while another model is published.

        Raises:
            AccelError: may-not-leave, model-not-here, corrupt-content, bad-config, busy, kubo-…, and with `as_files`
                what `add_files` raises.
        """
        stored = self._catalogue.require_here(text)
        _check_open(stored)
        async with self._alone(patience_s), self._daemon() as kubo:
            await kubo.version()
            if as_files:
                await self._add_files(kubo, stored, on_progress)
            else:
                await kubo.import_car(stored.cid_bytes, self._car(stored.cid_bytes, on_progress))
            on_progress("pinning", stored.size, stored.size, "")
            await kubo.pin(stored.cid_bytes)
            await trio.to_thread.run_sync(self._noted.add, stored.cid)
            on_progress("providing", 0, 0, "")
            failure = await _provide(kubo, stored.cid_bytes)
        return {
            "cid": stored.cid,
            "name": stored.name,
            "size": stored.size,
            "kubo": self._address,
            "published": True,
            "provided": failure is None,
            "provide_error": failure.as_dict() if failure else None,
        }

    async def unpublish(self, text: str) -> dict[str, Any]:
        """Unpins at the daemon what was published from here, also when it is not here any more."""
        cid = self._catalogue.resolve(text)
        if format_cid(cid) not in await trio.to_thread.run_sync(self._noted.read):
            raise AccelError(
                ErrorCode.BAD_INPUT,
                f"{text} was not published by this node",
                "What others pinned at the daemon goes with `ipfs pin rm`.",
            )
        async with self._alone(_PATIENCE_S), self._daemon() as kubo:
            was_pinned = await kubo.unpin(cid)
            await trio.to_thread.run_sync(self._noted.discard, format_cid(cid))
        return {"cid": format_cid(cid), "kubo": self._address, "published": False, "was_pinned": was_pinned}

    async def describe(self) -> dict[str, Any] | None:
        """How the daemon is; None when there is none. Takes five seconds at most."""
        if self._address is None:
            return None
        facts: dict[str, Any] = {"address": self._address, "version": "", "peer_id": "", "error": None}
        try:
            with trio.fail_after(_STATUS_S):
                async with self._daemon() as kubo:
                    facts["version"] = await kubo.version()
                    facts["peer_id"] = await kubo.peer_id()
        except trio.TooSlowError:
            why = f"the IPFS daemon at {self._address} was silent for {_STATUS_S:g} s"
            facts["error"] = AccelError(ErrorCode.KUBO_UNREACHABLE, why, "See what its log says.").as_dict()
        except AccelError as error:
            facts["error"] = error.as_dict()
        return facts

    @asynccontextmanager
    async def _alone(self, patience_s: float) -> AsyncIterator[None]:
        with trio.move_on_after(patience_s) as waiting:
            await self._one_at_a_time.acquire()
        if waiting.cancelled_caught:
            raise AccelError(
                ErrorCode.BUSY, "another model is being published by this node", "Try again when that is done."
            )
        try:
            yield
        finally:
            self._one_at_a_time.release()

    def _daemon(self) -> Kubo:
        if self._address is None:
            raise AccelError(
                ErrorCode.BAD_CONFIG,
                "no IPFS daemon is configured",
                "Name it: ipfs-accel-node start --kubo /ip4/127.0.0.1/tcp/5001",
            )
        return Kubo(parse_kubo(self._address), self._authorization)

    def _offer(self, stored: StoredModel) -> None:
        if stored.origin.gated:
            return
        try:
            self._offered.send_nowait(stored.cid_bytes)
        except trio.WouldBlock:
            log.warning("%s is not published: %d models wait already", stored.cid, _WAITING)

    async def _add_files(self, kubo: Kubo, stored: StoredModel, on_progress: OnProgress) -> None:
        contents, done = self._store.contents(stored.cid_bytes), 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            on_progress("publishing", done, stored.size, "")

        await add_files(kubo, contents, stored.path, on_bytes)

    async def _car(self, cid: bytes, on_progress: OnProgress) -> AsyncIterator[bytes]:
        report = from_thread(lambda _, done, total, note: on_progress("publishing", done, total, note))
        pieces = self._store.car(cid, report)
        while (piece := await trio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece


async def _provide(kubo: Kubo, cid: bytes) -> AccelError | None:
    """Why it is not provided, if it is not: it is pinned all the same, and the daemon provides it again by itself."""
    try:
        await provide(kubo, cid)
    except AccelError as error:
        log.warning("%s is published, and not provided: %s", format_cid(cid), error)
        return error
    return None


def _check_open(stored: StoredModel) -> None:
    if stored.origin.gated:
        raise AccelError(
            ErrorCode.MAY_NOT_LEAVE,
            f"{stored.name or stored.cid} is gated: it never leaves the cluster",
            "Its publisher decides who gets it.",
        )


class _Noted:
    """What this node published, a list of CIDs in a file. Blocking."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> set[str]:
        try:
            noted = json.loads(self._path.read_text(encoding="utf-8"))
            return {format_cid(parse_cid(each)) for each in noted}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError, AttributeError, AccelError) as error:
            log.warning("%s cannot be read, so nothing counts as published: %s", self._path, error)
            return set()

    def add(self, cid: str) -> None:
        self._write(self.read() | {cid})

    def discard(self, cid: str) -> None:
        self._write(self.read() - {cid})

    def _write(self, cids: set[str]) -> None:
        with coded_errors():
            write_whole(self._path, json.dumps(sorted(cids)).encode())

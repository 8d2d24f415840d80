"""The operations `repo.*` of the local door: what `docs/protocol.md` says of them."""

from __future__ import annotations

from typing import Any

from ..catalogue import Catalogue
from ..exchanges import IncomingCall
from ..storekeeping import Storekeeper
from .local import Operation


class RepoOperations:
    """Shows, cleans and checks the store of one running node."""

    def __init__(self, keeper: Storekeeper, catalogue: Catalogue) -> None:
        self._keeper = keeper
        self._catalogue = catalogue

    def by_name(self) -> dict[str, Operation]:
        return {"repo.stat": self.stat, "repo.gc": self.collect, "repo.verify": self.verify}

    async def stat(self, call: IncomingCall) -> dict[str, Any]:  # noqa: ARG002
        return await self._keeper.usage()

    async def collect(self, call: IncomingCall) -> dict[str, Any]:
        flags = {name: call.arguments.get(name) is True for name in ("unpinned", "dry_run")}
        return await self._keeper.collect(**flags)

    async def verify(self, call: IncomingCall) -> list[dict[str, Any]]:
        """One model, or all that are here."""
        model, repair = call.arguments.get("model"), call.arguments.get("repair") is True
        here = [self._catalogue.require_here(str(model))] if model else self._catalogue.here()
        cids = [stored.cid_bytes for stored in here]
        return await self._keeper.verify(cids, repair=repair, on_progress=call.progress)

"""Looking after the store of a running node: what takes room, what may go, what is damaged and can be mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import trio

from ..protocols.errors import AccelError
from .catalogue import Catalogue, from_thread
from .content.collection import plan, remove_folders
from .content.store import ModelStore

OnProgress = Callable[[str, int, int, str], None]


class Storekeeper:
    """What `repo` does on a running node."""

    def __init__(self, store: ModelStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue

    async def usage(self) -> dict[str, Any]:
        return await trio.to_thread.run_sync(self._store.usage)

    async def collect(self, *, unpinned: bool, dry_run: bool) -> dict[str, Any]:
        """Removes converted forms without a model, what is over the limit, and, if asked to, all that is unpinned.

        What a job uses stays, and is not in the answer.

        Raises:
            AccelError: disk-full when the store is over its limit with what has to stay.
        """
        planned = await trio.to_thread.run_sync(lambda: plan(self._store, unpinned=unpinned))
        if dry_run:
            return planned.told(planned.models, freed=0, dry_run=True)
        freed, removed = await trio.to_thread.run_sync(remove_folders, planned.orphans), []
        for model in planned.models:
            if size := await self._catalogue.remove_unused(model):
                freed += size
                removed.append(model)
        return planned.told(removed, freed=freed, dry_run=False)

    async def verify(self, cids: Iterable[bytes], *, repair: bool, on_progress: OnProgress) -> list[dict[str, Any]]:
        """Reads models again; with `repair`, what is damaged is fetched from the peers that have it."""
        found = []
        for cid in cids:
            reading = partial(self._store.verify, cid, from_thread(on_progress))
            files = await trio.to_thread.run_sync(reading, abandon_on_cancel=False)
            if (stored := self._store.get(cid)) is not None:
                mended = await self._mended(cid, on_progress) if files and repair else {}
                found.append({**stored.as_dict(), "damaged": files, **mended})
        return found

    async def _mended(self, cid: bytes, on_progress: OnProgress) -> dict[str, Any]:
        try:
            await self._catalogue.get(cid, None, on_progress=on_progress)
        except AccelError as error:
            return {"repaired": False, "error": error.as_dict()}
        return {"repaired": True}

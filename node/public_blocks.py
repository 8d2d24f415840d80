"""The blocks that a node with `--public` gives to anybody: those of the models that are not gated."""

from __future__ import annotations

import trio

from .content.store import ModelStore


class PublicBlocks:
    """A block that a gated model shares with one that is not may go; any other of a gated model is not there."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def has(self, cid: bytes) -> bool:
        return self._store.is_open(cid)

    async def read(self, cid: bytes) -> bytes | None:
        return await trio.to_thread.run_sync(self._store.read_block, cid) if self.has(cid) else None

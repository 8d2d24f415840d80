"""A peer as a source of blocks that knows two ways: its bulk connection where there is one, else libp2p."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ...protocols.errors import AccelError, ErrorCode
from ..content.exchange import BlockSource, Deliver, FetchEndsError, Settled
from ..content.orders import Order, Outcome, in_parts
from ..content.places import as_mismatch
from .process import BulkProcess, Connection, TicketAsker

log = logging.getLogger(__name__)

#: What the peer cannot help.
_OWN: Final = frozenset(
    {ErrorCode.DISK_FULL, ErrorCode.BAD_CONFIG, ErrorCode.BAD_INPUT, ErrorCode.INTERNAL, ErrorCode.HOSTILE_CONTENT}
)

Moved = Callable[[str, int, float], None]


class ClosingSource(BlockSource, Protocol):
    async def aclose(self) -> None: ...


class DirectPeer:
    """Fetches blocks into files through the bulk process. It goes back to `blocks` for good when that does not work."""

    def __init__(self, blocks: ClosingSource, bulk: BulkProcess, ask: TicketAsker, moved: Moved) -> None:
        """`moved` is told (peer, bytes, seconds) of each batch."""
        self.name = blocks.name
        self._blocks = blocks
        self._bulk = bulk
        self._ask = ask
        self._moved = moved
        self._connection: Connection | None = None
        self._given_up = False

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        await self._blocks.fetch(cids, deliver)

    async def write(self, orders: Sequence[Order], settled: Settled) -> bool:
        """Tells of each order, in turn, what became of it. False when there is no direct way for those not told of.

        Raises:
            AccelError: when the peer refuses, breaks the protocol, is silent or leaves.
            FetchEndsError: the bytes cannot be written here, whoever they come from.
        """
        for part in in_parts(orders):
            connection = await self._connected()
            if connection is None or not await self._write(connection, part, settled):
                return False
        return True

    async def _write(self, connection: Connection, orders: Sequence[Order], settled: Settled) -> bool:
        began, size = time.monotonic(), 0

        def progress(outcome: str, number: int, bytes_moved: int, _note: str) -> None:
            nonlocal size
            size += bytes_moved
            settled(orders[number].cid, Outcome(outcome), bytes_moved)

        try:
            await connection.get(orders, progress)
        except BaseException as error:
            await self.aclose(blocks=False)
            if not isinstance(error, AccelError):
                raise
            if error.code in _OWN:
                raise FetchEndsError(as_mismatch(error)) from None
            if error.code not in (ErrorCode.WORKER_DIED, ErrorCode.BUSY):
                raise
            log.warning("the bulk connection with %s is gone, by no fault of its own: %s", self.name, error)
            return False
        self._moved(self.name, size, time.monotonic() - began)
        return True

    async def aclose(self, *, blocks: bool = True) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
        if blocks:
            await self._blocks.aclose()

    async def _connected(self) -> Connection | None:
        if self._connection is None and not self._given_up:
            try:
                self._connection = await self._bulk.connect(self._ask)
                log.info("a bulk connection with %s is open", self.name)
            except AccelError as error:
                log.warning("no bulk connection with %s, libp2p is used: %s", self.name, error)
                self._given_up = error.code != ErrorCode.WORKER_DIED
        return self._connection

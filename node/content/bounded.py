"""Reads an HTTP answer without holding more of it than was agreed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ...protocols.errors import AccelError

if TYPE_CHECKING:
    import httpx


async def read_bounded(response: httpx.Response, limit: int) -> bytes | None:
    """The whole body as it was sent; None when it has more than `limit` bytes."""
    body = bytearray()
    # Leaving the loop would leave the generators of httpx behind, half used; cancelling ends them from the inside.
    with trio.CancelScope() as reading:
        async for piece in response.aiter_raw():
            if len(body) + len(piece) > limit:
                reading.cancel()
            else:
                body += piece
    return None if reading.cancel_called else bytes(body)


async def each_line(response: httpx.Response, limit: int, hear: Callable[[bytes], bool]) -> bool:
    """Calls `hear` with each line as it comes, until it says False. False when the body has more than `limit` bytes.

    What `hear` raises ends it.
    """
    waiting, size = bytearray(), 0
    failure: AccelError | None = None
    with trio.CancelScope() as reading:
        async for piece in response.aiter_raw():
            if reading.cancel_called:
                continue
            waiting += piece
            size += len(piece)
            try:
                if size > limit or not _heard(waiting, hear):
                    reading.cancel()
            except AccelError as error:
                failure = error
                reading.cancel()
        if waiting.strip() and not reading.cancel_called:
            hear(bytes(waiting))
    if failure is not None:
        raise failure
    return size <= limit


def _heard(waiting: bytearray, hear: Callable[[bytes], bool]) -> bool:
    """Takes the whole lines out; False when no more is to be heard."""
    while (end := waiting.find(b"\n")) >= 0:
        line = bytes(waiting[:end])
        del waiting[: end + 1]
        if line.strip() and not hear(line):
            return False
    return True

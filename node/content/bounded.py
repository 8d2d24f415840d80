"""Reads an HTTP answer without holding more of it than was agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

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

"""What py-libp2p 0.8 does that a node cannot live with, mended from outside; `docs/decisions.md` has each measured.

`apply` changes the library for the whole process and may be called again.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, Final

import trio

#: A frame that cannot be written for this long has a peer whose connection is stuck.
_FRAME_DEADLINE_S: Final = 30.0
_QUIET: Final = ("libp2p", "multiaddr", "async_service")


def apply() -> None:
    """Imports libp2p, which takes about half a second, and mends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from libp2p.network import swarm
        from libp2p.stream_muxer.yamux.yamux import Yamux

    # Each successful dial waited a quarter of a second for addresses that could be better.
    swarm._HAPPY_EYEBALLS_DELAY = 0
    Yamux._write_frame = _write_whole_frame
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _write_whole_frame(self: Any, data: bytes) -> None:
    """A cancellation that lands inside a write leaves half a frame and a used nonce, and kills the connection."""
    async with self._write_lock:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FRAME_DEADLINE_S) as scope:
            await self.secured_conn.write(data)
        if scope.cancelled_caught:
            await self._cleanup_on_error()
            raise trio.BrokenResourceError("a frame could not be written")
    await trio.lowlevel.checkpoint()

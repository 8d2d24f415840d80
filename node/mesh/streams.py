"""A libp2p stream as a byte stream: the one border where libp2p's exceptions become trio's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

#: The largest write that still fits one Noise message together with its yamux header.
PIECE: Final = 65_507
BULK_WINDOW: Final = 8 << 20
#: What yamux lets the other side send before it is told more.
_USUAL_WINDOW: Final = 256 << 10
_READ_SIZE: Final = 1 << 20
_RESET_DEADLINE_S: Final = 1.0


class PeerStream:
    """Reads and writes whole pieces; EOF and a peer's reset both read as the end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._muxed = stream.muxed_stream
        self._window = _USUAL_WINDOW
        self._unacknowledged = 0

    @property
    def peer_id(self) -> str:
        return str(self._stream.muxed_conn.peer_id)

    async def widen(self, window: int = BULK_WINDOW) -> None:
        """Lets the peer send `window` bytes ahead, for bulk: at the end of its window yamux here sleeps for 10 ms."""
        if window > self._window:
            self._unacknowledged += window - self._window
            self._window = window
            with _translated():
                await self._grant()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Reads past yamux's own accounting, which would answer every small read with a frame of its own."""
        data = b""
        with _translated():
            data = bytes(await self._muxed.conn.read_stream(self._muxed.stream_id, max_bytes or _READ_SIZE))
            self._unacknowledged += len(data)
            if self._unacknowledged >= self._window // 4:
                await self._grant()
        return data

    async def _grant(self) -> None:
        """Lets the peer send as much again as was read since the last time."""
        granted, self._unacknowledged = self._unacknowledged, 0
        self._muxed.recv_window += granted
        await self._muxed.send_window_update(granted)

    async def send_all(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError when the stream is gone."""
        with _translated() as ended:
            if len(data) <= PIECE:
                await self._stream.write(data)
                return
            with memoryview(data) as view:
                for at in range(0, len(view), PIECE):
                    await self._stream.write(bytes(view[at : at + PIECE]))
        if ended:
            raise trio.BrokenResourceError("the stream was closed by the peer")

    async def aclose(self) -> None:
        """Resets the stream, so that nothing of it is left on either side."""
        with trio.move_on_after(_RESET_DEADLINE_S, shield=True), suppress(Exception):
            await self._stream.reset()


@contextmanager
def _translated() -> Iterator[list[bool]]:
    """The list is filled when the stream came to an end in any of the ways libp2p says so."""
    from libp2p.network.stream.exceptions import StreamError
    from libp2p.stream_muxer.exceptions import MuxedStreamError

    ended: list[bool] = []
    try:
        yield ended
    except (StreamError, MuxedStreamError):
        ended.append(True)
    except (trio.Cancelled, trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except Exception as error:
        raise trio.BrokenResourceError(f"the stream failed: {error!r}") from None

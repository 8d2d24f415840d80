"""A libp2p stream as a byte stream: the one border where libp2p's exceptions become trio's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

from .workarounds import window_change

#: The largest write that still fits one Noise message together with its yamux header.
PIECE: Final = 65_507
BULK_WINDOW: Final = 1 << 22
#: What yamux lets the other side send before it is told more.
_USUAL_WINDOW: Final = 256 << 10
_READ_SIZE: Final = 1 << 20
_RESET_DEADLINE_S: Final = 1.0
_LAST_WORDS_S: Final = 0.5
#: version, type, flags, stream id, length (hashicorp/yamux, spec.md)
_HEADER: Final = struct.Struct("!BBHII")
_DATA: Final = 0


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

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent on it."""
        muxed = self._muxed
        return not (muxed.closed or muxed.send_closed or muxed.conn.event_shutting_down.is_set())

    async def widen(self, window: int = BULK_WINDOW) -> None:
        """Lets the peer send `window` bytes ahead, for bulk."""
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
        """Waits for as long as the peer does not read. Raises trio.BrokenResourceError when the stream is gone."""
        with _translated() as ended, memoryview(data) as view:
            at = 0
            while at < len(view):
                size = await self._take_window(min(PIECE, len(view) - at))
                header = _HEADER.pack(0, _DATA, 0, self._muxed.stream_id, size)
                await self._muxed.conn._write_frame(b"".join((header, view[at : at + size])))
                at += size
        if ended:
            raise trio.BrokenResourceError("the stream was closed by the peer")

    async def send_last(self, data: bytes) -> None:
        """Sends what ends the conversation. The peer gets a moment to read it: a reset at once would overtake it."""
        await self.send_all(data)
        with trio.move_on_after(_LAST_WORDS_S), _translated():
            await self._muxed.close()
            while await self.receive_some():
                pass

    async def _take_window(self, wanted: int) -> int:
        """How many bytes may go now, at least one: yamux's own write sleeps 10 ms at a time and gives up after 5 s."""
        muxed = self._muxed
        while True:
            if not self.is_open:
                raise trio.BrokenResourceError("the stream is closed")
            if muxed.send_window > 0:
                size = min(wanted, muxed.send_window)
                muxed.send_window -= size
                return int(size)
            await window_change(muxed)

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

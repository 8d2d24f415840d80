"""A libp2p stream as a byte stream: the one border where libp2p's exceptions become trio's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

#: The largest write that still fits one Noise message together with its yamux header.
PIECE: Final = 65_507
BULK_WINDOW: Final = 8 << 20
_READ_SIZE: Final = 1 << 20
_RESET_DEADLINE_S: Final = 1.0


class PeerStream:
    """Reads and writes whole pieces; EOF and a peer's reset both read as the end."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def peer_id(self) -> str:
        return str(self._stream.muxed_conn.peer_id)

    async def widen(self, window: int = BULK_WINDOW) -> None:
        """Lets the peer send `window` bytes ahead, for bulk: at the end of its window yamux here sleeps for 10 ms."""
        muxed = self._stream.muxed_stream
        muxed.target_recv_window = max(window, muxed.target_recv_window)
        with _translated():
            await muxed._auto_tune_and_send_window_update()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = b""
        with _translated():
            data = bytes(await self._stream.read(max_bytes or _READ_SIZE))
        return data  # noqa: RET504 — the end of a stream reads as nothing

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

    ended: list[bool] = []
    try:
        yield ended
    except StreamError:
        ended.append(True)
    except (trio.Cancelled, trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except Exception as error:
        raise trio.BrokenResourceError(f"the stream failed: {error!r}") from None

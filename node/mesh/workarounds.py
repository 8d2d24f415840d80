"""What py-libp2p 0.8 does that a node cannot live with, mended from outside; `docs/decisions.md` has each measured.

`apply` changes the library for the whole process and may be called again.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio

from .strangers import Guest, Strangers

log = logging.getLogger(__name__)

#: A frame that cannot be written for this long has a peer whose connection is stuck.
_FRAME_DEADLINE_S: Final = 30.0
#: Open streams of one connection; a peer needs fewer than ten, and before it has a link fewer still.
_MAX_STREAMS: Final = 64
_MAX_STRANGERS_STREAMS: Final = 8
#: Kubo before 0.37 opens a stream for each block that it sends, eight at once.
_MAX_SOURCES_STREAMS: Final = 24
#: The largest frame of yamux, and the largest message of anything else that is read whole, in bytes.
_MAX_FRAME: Final = 16 << 20
_MAX_MESSAGE: Final = 256 << 10
#: How far a peer may overrun its window before it is taken for hostile.
_WINDOW_SLACK: Final = 256 << 10
_CLOSE_DEADLINE_S: Final = 1.0
_QUIET: Final = ("libp2p", "multiaddr", "async_service")


@functools.cache
def apply() -> None:
    """Imports libp2p, which takes about half a second, and mends it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from libp2p.host import ping
        from libp2p.io import msgio
        from libp2p.network import swarm
        from libp2p.network.connection.swarm_connection import SwarmConn
        from libp2p.stream_muxer.yamux import yamux
        from libp2p.tools.anyio_service.trio_manager import TrioManager
        from libp2p.utils import varint

    # Each successful dial waited a quarter of a second for addresses that could be better.
    swarm._HAPPY_EYEBALLS_DELAY = 0
    for module in (ping, msgio, varint):
        module.read_exactly = functools.partial(_read_exactly, most=_MAX_MESSAGE)
    yamux.read_exactly = functools.partial(_read_exactly, most=_MAX_FRAME)
    yamux.Yamux._write_frame = _write_whole_frame
    yamux.Yamux.__init__ = _with_bounded_buffers(yamux.Yamux.__init__)
    for name in ("send_window", "closed"):
        setattr(yamux.YamuxStream, name, _observed(name))
    swarm.Swarm._handle_inbound_connection = _keep_inbound_connection
    SwarmConn._handle_muxed_stream = _contained_stream(SwarmConn._handle_muxed_stream)
    TrioManager.run_task = _with_contained_tasks(TrioManager.run_task)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def dial_nothing_else(host: Any, peer_id: Any) -> None:
    """Before an address is dialled: makes the library forget every other of that peer, and that it failed before.

    Of several TCP addresses it dials only the first, which may be one that the peer's identify told: 0.0.0.0, for one
    that listens everywhere. And it refuses to dial for a minute who could not be reached.
    """
    host.get_peerstore().clear_addrs(peer_id)
    host.get_network().unblock_peer(peer_id)


# --- frames


async def _write_whole_frame(self: Any, data: bytes) -> None:
    """A cancellation that lands inside a write leaves half a frame and a used nonce, and kills the connection."""
    async with self._write_lock:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FRAME_DEADLINE_S) as scope:
            await self.secured_conn.write(data)
        if scope.cancelled_caught:
            await self._cleanup_on_error()
            raise trio.BrokenResourceError("a frame could not be written")
    await trio.lowlevel.checkpoint()


async def _read_exactly(reader: Any, n: int, *, most: int) -> bytes:
    """The library's own gives up after a hundred short reads, which a slow path makes of one frame.

    And it goes on reading, and keeping, whatever length the other side announced.
    """
    from libp2p.io.exceptions import IncompleteReadError

    if n > most:
        raise IncompleteReadError(f"{n} bytes are announced, over the limit of {most}", n, 0)
    data = bytes(await reader.read(n))
    if len(data) == n:
        return data
    whole = bytearray(data)
    while data and len(whole) < n:
        data = await reader.read(n - len(whole))
        whole += data
    if len(whole) < n:
        raise IncompleteReadError(f"the end came after {len(whole)} of {n} bytes", n, len(whole))
    return bytes(whole)


# --- flow control


def _observed(name: str) -> property:
    """An attribute of a yamux stream whose change wakes who waits in `window_change`.

    The library itself sleeps for 10 ms at the end of a window and gives up after 5 s.
    """
    hidden = f"_observed_{name}"

    def get(self: Any) -> Any:
        return self.__dict__[hidden]

    def change(self: Any, value: Any) -> None:
        self.__dict__[hidden] = value
        if (changed := self.__dict__.pop("_window_changed", None)) is not None:
            changed.set()

    return property(get, change)


async def window_change(stream: Any) -> None:
    """Waits until a yamux stream may send more, or is closed."""
    if "_window_changed" not in stream.__dict__:
        stream._window_changed = trio.Event()
    await stream._window_changed.wait()


class _Buffer(bytearray):
    """What has come on a stream and waits to be read. A peer that sends more than it was allowed is cut off."""

    def __init__(self, connection: Any, stream_id: int) -> None:
        super().__init__()
        self._connection = connection
        self._stream_id = stream_id

    def extend(self, data: Any) -> None:
        stream = self._connection.streams.get(self._stream_id)
        if stream is not None and len(data) > stream.recv_window + _WINDOW_SLACK:
            log.warning("%s sends past its window; dropping it", self._connection.peer_id)
            self._connection.event_shutting_down.set()
            raise OverflowError("more came than was allowed")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection

    def __setitem__(self, stream_id: int, _empty: bytearray) -> None:
        super().__setitem__(stream_id, _Buffer(self._connection, stream_id))


def _with_bounded_buffers(inner: Callable[..., None]) -> Callable[..., None]:
    """The library logs that a peer exceeds its window, and goes on to keep whatever it sends."""

    @functools.wraps(inner)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        inner(self, *args, **kwargs)
        self.stream_buffers = _Buffers(self)

    return init


# --- what one peer does must not reach the others


def _contained_stream(inner: Callable[[Any, Any], Awaitable[None]]) -> Callable[[Any, Any], Awaitable[None]]:
    """Bounds the streams of a connection, and ends with a stream whatever its handler raises.

    An exception that escaped one, such as a malformed GossipSub message, ended the whole host.
    """

    async def handle(self: Any, stream: Any) -> None:
        try:
            if len(self.streams) >= _most_streams(self.swarm.strangers, str(self.muxed_conn.peer_id)):
                await stream.reset()
            else:
                await inner(self, stream)
        except* Exception as error:
            log.debug("a stream of %s ended: %r", self.muxed_conn.peer_id, error)
            with trio.move_on_after(_CLOSE_DEADLINE_S):
                await _quietly(stream.reset)

    return handle


def _most_streams(strangers: Strangers, peer_id: str) -> int:
    if strangers.is_member(peer_id):
        return _MAX_STREAMS
    return _MAX_SOURCES_STREAMS if strangers.guest(peer_id) is Guest.SOURCE else _MAX_STRANGERS_STREAMS


def _with_contained_tasks(run_task: Callable[..., None]) -> Callable[..., None]:
    """The tasks that a service makes for a peer or a message end alone; they ended the service, and so the host."""

    @functools.wraps(run_task)
    def run(self: Any, task: Any, *args: Any, daemon: bool = False, name: str | None = None, **rest: Any) -> None:
        whole = daemon or rest.get("_internal", False)
        run_task(self, task if whole else _contained_task(task), *args, daemon=daemon, name=name, **rest)

    return run


def _contained_task(task: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(task)
    async def run(*args: Any) -> None:
        try:
            await task(*args)
        except* Exception as error:
            log.debug("a task of libp2p ended: %r", error)

    return run


async def _keep_inbound_connection(self: Any, stream: Any, address: Any) -> None:
    """Upgrades a connection and stays until it is closed.

    The library's own counts connections until the host ends: after 250, however short, nobody was let in any more.
    And it has no room for a peer while strangers hold all there is.
    """
    from libp2p.network.connection.raw_connection import RawConnection

    connection = RawConnection(stream, False)
    try:
        with self.strangers.places.one() as place:
            muxed = await self.upgrade_inbound_raw_conn(connection, address)
            await self.strangers.keep(place, str(muxed.peer_id), muxed.event_closed)
            await abort(muxed)
    except* Exception as error:
        log.debug("an inbound connection ended: %r", error)
    finally:
        with trio.move_on_after(_CLOSE_DEADLINE_S, shield=True):
            await _quietly(connection.close)


async def abort(muxed: Any) -> None:
    """Ends a connection without a word: one that says goodbye waits behind whatever its peer does not read."""
    if not muxed.is_closed:
        with trio.move_on_after(_CLOSE_DEADLINE_S, shield=True):
            await _quietly(muxed._cleanup_on_error)


async def _quietly(close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except Exception as error:
        log.debug("closing: %r", error)

"""The door for clients on other machines: TLS 1.3 on TCP, with a certificate they pin and a token they show.

Nothing but a whole opening (`protocols/client_door.py`) is taken from who was not let in yet, for a few seconds and of
a bounded number at once. After it, a client speaks the same frames as on the Unix socket, with two exceptions: it
cannot name paths of this machine, and it is told no secret.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import trio

from ...protocols.client_door import MAX_OPENING, NodeOpening
from ...protocols.errors import AccelError, ErrorCode
from ..channel import Channel
from ..client_keys import ClientKeys
from ..config import Paths
from ..exchanges import Incoming, IncomingCall
from ..tcp import HostPort, probes
from .local import LocalDoor

log = logging.getLogger(__name__)

_MAX_CLIENTS: Final = 64
#: More than clients can be connected, so that no crowd of honest ones is cut short.
_MAX_OPENINGS: Final = 2 * _MAX_CLIENTS
_BACKLOG: Final = 128
_OPENING_DEADLINE_S: Final = 5.0
#: How long a client that is refused may take to hear it.
_REFUSAL_DEADLINE_S: Final = 1.0
_TOLD_A_SECOND: Final = 5
#: Operations that mean this machine's disk or hand out its secrets → what to do instead.
_ONLY_HERE: Final = {
    "model.add": "Copy the folder to the node's machine and run `ipfs-accel-node model add` there.",
    "client-token": "Run `ipfs-accel-node client-token` on the node's machine.",
}
#: What an answer tells only on this machine: a client's token is no membership of the cluster.
_SECRETS: Final = frozenset({"token"})


class TlsDoor:
    """Clients over TLS, and the token they need; the keys are made when they are first asked for."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._clients: set[Channel] = set()
        self._room = trio.CapacityLimiter(_MAX_CLIENTS)
        self._openings = _Openings()
        self._failures = _Failures()
        self.addresses: list[str] = []

    @cached_property
    def keys(self) -> ClientKeys:
        return ClientKeys(self._paths)

    async def token(self, call: IncomingCall) -> dict[str, Any]:
        """The operation `client-token`. A new one ends the connections that were opened with the old one."""
        if isinstance(call.arguments, dict) and call.arguments.get("new") is True:
            self.keys.renew()
            self._openings.drop_all()
            for client in self._clients:
                client.close()
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """What a client needs: the token, the certificate's SHA-256, and where it may connect."""
        return {**self.keys.describe(), "addresses": self.addresses}

    async def serve(
        self, address: HostPort, door: LocalDoor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Lets clients in until cancelled. Raises AccelError port-in-use, permission-denied, bad-config."""
        context = self.keys.tls_context()
        listeners = await _listen(address)
        self.addresses = [shown for listener in listeners for shown in _reachable(listener)]
        serve = partial(self._serve_client, _RemoteDoor(door), context)
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, serve, listeners)
            task_status.started()

    async def _serve_client(self, door: _RemoteDoor, context: ssl.SSLContext, stream: trio.SocketStream) -> None:
        """Whatever one connection does, it ends alone."""
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            if await self._let_in(tls):
                await self._run(Channel(tls, dialler=False, handler=door))
        except Exception:
            log.exception("a client's connection failed")
        finally:
            self._give_place_back(tls)
            await trio.aclose_forcefully(stream)

    @property
    def is_sending(self) -> bool:
        """Whether an answer waits to be read by a client."""
        return any(channel.session.queued_bytes for channel in self._clients)

    async def _run(self, channel: Channel) -> None:
        self._clients.add(channel)
        try:
            await channel.run()
        finally:
            self._clients.discard(channel)

    async def _let_in(self, tls: trio.SSLStream[trio.SocketStream]) -> bool:
        """Whether this client may stay; one that may not has been told why, when it could be told."""
        host = _host_of(tls.transport_stream)
        why = "it was not done in time, or gave way to others"
        with self._openings.one_more(host):
            try:
                await self._open(tls)
                return True
            except AccelError as error:
                why = error.message
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                why = f"it speaks no TLS 1.3 or left ({error.__cause__ or error})"
        self._failures.tell(host, why)
        return False

    async def _open(self, tls: trio.SSLStream[trio.SocketStream]) -> None:
        for option in probes():
            tls.transport_stream.setsockopt(*option)
        await tls.do_handshake()
        opening = NodeOpening(self.keys.token.secret)
        try:
            while not opening.done:
                opening.receive(await _received(tls))
            self._take_place(tls)
        except AccelError as error:
            opening.refuse(error)
            with trio.move_on_after(_REFUSAL_DEADLINE_S):
                await tls.send_all(opening.take_outgoing())
                await tls.aclose()
            raise
        opening.welcome()
        await tls.send_all(opening.take_outgoing())

    def _take_place(self, tls: object) -> None:
        try:
            self._room.acquire_on_behalf_of_nowait(tls)
        except trio.WouldBlock:
            raise AccelError(
                ErrorCode.BUSY, f"{_MAX_CLIENTS} clients are connected", "Try again when one has left."
            ) from None

    def _give_place_back(self, tls: object) -> None:
        with suppress(RuntimeError):  # it had none
            self._room.release_on_behalf_of(tls)


async def _received(tls: trio.SSLStream[trio.SocketStream]) -> bytes:
    data = await tls.receive_some(MAX_OPENING)
    if not data:
        raise trio.BrokenResourceError("it said nothing")
    return bytes(data)


class _RemoteDoor:
    """The local door as clients on other machines find it."""

    def __init__(self, door: LocalDoor) -> None:
        self._door = door

    async def handle_request(self, incoming: Incoming) -> None:
        await self._door.handle_request(incoming)

    async def handle_call(self, call: IncomingCall) -> Any:
        if call.method in _ONLY_HERE:
            raise AccelError(
                ErrorCode.PERMISSION_DENIED,
                f"{call.method} is for clients on the node's own machine",
                _ONLY_HERE[call.method],
            )
        answer = await self._door.handle_call(call)
        return {key: answer[key] for key in answer if key not in _SECRETS} if isinstance(answer, dict) else answer


@dataclass(eq=False)
class _Opening:
    host: str
    scope: trio.CancelScope


class _Openings:
    """Connections that were not let in yet, each with a deadline. When there are too many, the oldest one of the
    machine that has the most gives way, so that whoever only connects keeps nobody else out."""

    def __init__(self) -> None:
        self._open: list[_Opening] = []

    @contextmanager
    def one_more(self, host: str) -> Iterator[None]:
        if len(self._open) >= _MAX_OPENINGS:
            self._drop(self._next_to_go())
        with trio.move_on_after(_OPENING_DEADLINE_S) as scope:
            opening = _Opening(host, scope)
            self._open.append(opening)
            try:
                yield
            finally:
                if opening in self._open:
                    self._open.remove(opening)

    def drop_all(self) -> None:
        for opening in list(self._open):
            self._drop(opening)

    def _drop(self, opening: _Opening) -> None:
        self._open.remove(opening)
        opening.scope.cancel()

    def _next_to_go(self) -> _Opening:
        hosts = [opening.host for opening in self._open]
        most = max(hosts, key=hosts.count)
        return next(opening for opening in self._open if opening.host == most)


class _Failures:
    """Tells the log of clients that were not let in, a bounded number of lines a second."""

    def __init__(self) -> None:
        self._since = trio.current_time()
        self._told = self._left_out = 0

    def tell(self, host: str, why: str) -> None:
        if (now := trio.current_time()) - self._since >= 1:
            if self._left_out:
                log.warning("%d more clients were not let in", self._left_out)
            self._since, self._told, self._left_out = now, 0, 0
        if self._told == _TOLD_A_SECOND:
            self._left_out += 1
            return
        self._told += 1
        log.warning("a client from %s was not let in: %s", host, why)


async def _listen(address: HostPort) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(address.port, host=address.host, backlog=_BACKLOG)
    except OSError as error:
        codes = {errno.EADDRINUSE: ErrorCode.PORT_IN_USE, errno.EACCES: ErrorCode.PERMISSION_DENIED}
        raise AccelError(
            codes.get(error.errno or 0, ErrorCode.BAD_CONFIG),
            f"cannot listen for clients on {address}: {error.strerror or error}",
            "Choose another address with --listen-clients.",
        ) from None


def _reachable(listener: trio.SocketListener) -> list[str]:
    """Where clients find it: of every interface when it listens on all, loopback only when nothing else is there."""
    host, port = listener.socket.getsockname()[:2]
    if not ipaddress.ip_address(host).is_unspecified:
        return [str(HostPort(host, port))]
    import ifaddr

    ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv6 == (":" in host)]
    own = [ipaddress.ip_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0]) for ip in ips]
    outside = [each for each in own if not each.is_link_local and not each.is_loopback]
    return [str(HostPort(str(each), port)) for each in outside or own]


def _host_of(stream: trio.SocketStream) -> str:
    with suppress(OSError):
        return str(stream.socket.getpeername()[0])
    return "nowhere"

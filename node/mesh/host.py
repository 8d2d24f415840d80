"""The libp2p host: Noise only, TCP, yamux. Everything else of libp2p that a node touches is in this folder too."""

from __future__ import annotations

import errno
import ipaddress
import logging
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from ...protocols.errors import AccelError, ErrorCode
from . import workarounds
from .identity import Identity
from .strangers import Guest, Strangers
from .streams import PeerStream

log = logging.getLogger(__name__)

OnStream = Callable[[PeerStream], Awaitable[None]]

_DIAL_DEADLINE_S: Final = 10.0
_STREAM_DEADLINE_S: Final = 5.0
_CLOSE_DEADLINE_S: Final = 1.0


class Host:
    """One libp2p host that listens and dials."""

    def __init__(self, identity: Identity) -> None:
        workarounds.apply()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.libp2p = _new_host(identity)
        network = self.libp2p.get_network()
        network.strangers = Strangers(lambda peer_id: self.is_member(peer_id), lambda peer_id: self.guest(peer_id))
        network.set_resource_manager(
            None
        )  # it keeps count of connections that ended, and lets nobody in when it is full
        self.peer_id = identity.peer_id
        #: Whether a peer has a link; until somebody says so, nobody has.
        self.is_member: Callable[[str], bool] = lambda _peer_id: False
        #: What a peer without a link may do here beyond saying its hello.
        self.guest: Callable[[str], Guest] = lambda _peer_id: Guest.NO

    @asynccontextmanager
    async def listening(self, addresses: list[str]) -> AsyncIterator[None]:
        """Listens while inside. Raises AccelError port-in-use, bad-config."""
        from multiaddr import Multiaddr

        try:
            parsed = [Multiaddr(address) for address in addresses]
        except Exception:
            raise AccelError(
                ErrorCode.BAD_CONFIG, f"{', '.join(addresses)} is no address", "It looks like /ip4/0.0.0.0/tcp/4011."
            ) from None
        for address in addresses:
            _check_free(address)
        async with self.libp2p.run(listen_addrs=parsed):
            yield

    def addresses(self) -> list[str]:
        """Where peers reach this node, with its peer id; loopback only when nothing else is there."""
        found: list[str] = []
        for address in self.libp2p.get_transport_addrs():
            found += _reachable(str(address).split("/p2p/")[0])
        outside = [address for address in found if not _is_loopback(address)]
        return [f"{address}/p2p/{self.peer_id}" for address in dict.fromkeys(outside or found)]

    def on_stream(self, protocol: str, handle: OnStream) -> None:
        """Handles each stream of a protocol. Whatever `handle` raises ends that stream and nothing else."""

        async def contained(stream: Any) -> None:
            peer_stream = PeerStream(stream)
            try:
                await handle(peer_stream)
            except Exception as error:
                log.info("a stream of %s ended: %r", protocol, error)
            finally:
                await peer_stream.aclose()

        self.libp2p.set_stream_handler(protocol, contained)

    def off_stream(self, protocol: str) -> None:
        """Takes no more streams of a protocol."""
        self.libp2p.remove_stream_handler(protocol)

    def is_connected(self, peer_id: str) -> bool:
        from libp2p.peer.id import ID

        return bool(self.libp2p.get_network().get_connections(ID.from_string(peer_id)))

    async def connect(self, address: str) -> str:
        """Connects to `…/p2p/<peer id>` and gives the peer id. Raises AccelError peer-lost, bad-config."""
        from libp2p.peer.peerinfo import info_from_p2p_addr
        from multiaddr import Multiaddr

        try:
            info = info_from_p2p_addr(Multiaddr(address))
        except Exception:
            raise AccelError(
                ErrorCode.BAD_CONFIG, f"{address!r} is no peer's address", "It ends in /p2p/ and a peer id."
            ) from None
        try:
            with trio.fail_after(_DIAL_DEADLINE_S):
                workarounds.dial_nothing_else(self.libp2p, info.peer_id)
                await self.libp2p.connect(info)
        except Exception as error:
            raise AccelError(ErrorCode.PEER_LOST, f"{address} cannot be reached: {_why(error)}") from None
        return str(info.peer_id)

    async def open_stream(self, peer_id: str, protocol: str) -> PeerStream:
        """Raises AccelError peer-lost when it does not open within a few seconds."""
        from libp2p.peer.id import ID

        try:
            with trio.fail_after(_STREAM_DEADLINE_S):
                return PeerStream(await self.libp2p.new_stream(ID.from_string(peer_id), [protocol]))
        except Exception as error:
            raise AccelError(ErrorCode.PEER_LOST, f"no stream to {peer_id} opens: {error}") from None

    async def disconnect(self, peer_id: str) -> None:
        """Closes every connection with a peer, whether it reads or not."""
        from libp2p.peer.id import ID

        for connection in list(self.libp2p.get_network().get_connections(ID.from_string(peer_id))):
            with trio.move_on_after(_CLOSE_DEADLINE_S):
                try:
                    await connection.close()
                except Exception as error:
                    log.debug("disconnecting %s: %r", peer_id, error)
            await workarounds.abort(connection.muxed_conn)


def _why(error: BaseException) -> str:
    """What is at the root of a failed dial: the library says only that no address worked."""
    inner: BaseException | None = error
    while inner is not None:
        error = inner
        several = getattr(error, "errors", None) or getattr(error, "exceptions", None)
        inner = several[0] if several else error.__cause__
    return f"no answer within {_DIAL_DEADLINE_S:g} s" if isinstance(error, trio.TooSlowError) else str(error)


def _new_host(identity: Identity) -> Any:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
    from libp2p.security.noise.transport import PROTOCOL_ID, Transport

    key_pair = create_new_key_pair(identity.seed)
    noise = Transport(libp2p_keypair=key_pair, noise_privkey=create_noise_key_pair().private_key)
    return new_host(key_pair=key_pair, sec_opt={PROTOCOL_ID: noise}, muxer_preference="YAMUX")


def _check_free(address: str) -> None:
    """Says plainly that a port is taken; libp2p itself would go on without listening."""
    import socket

    parts = address.strip("/").split("/")
    if len(parts) < 4 or parts[0] not in ("ip4", "ip6") or parts[2] != "tcp":
        raise AccelError(ErrorCode.BAD_CONFIG, f"{address!r} is no TCP address", "It looks like /ip4/0.0.0.0/tcp/4011.")
    family = socket.AF_INET if parts[0] == "ip4" else socket.AF_INET6
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((parts[1], int(parts[3])))
        except (OSError, ValueError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise AccelError(
                ErrorCode.PORT_IN_USE if in_use else ErrorCode.BAD_CONFIG,
                f"cannot listen on {address}: {error}",
                "Choose another port with --listen, or port 0 for any.",
            ) from None


def _reachable(address: str) -> list[str]:
    """An address that means every interface, as the addresses of those interfaces."""
    _, family, host, rest = address.split("/", 3)
    if not ipaddress.ip_address(host).is_unspecified:
        return [address]
    import ifaddr

    version = 4 if family == "ip4" else 6
    ips = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4 == (version == 4)]
    hosts = [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in ips]
    return [f"/{family}/{host}/{rest}" for host in hosts if not ipaddress.ip_address(host).is_link_local]


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("/")[2]).is_loopback

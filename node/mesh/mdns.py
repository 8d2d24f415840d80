"""Finding the cluster on the local network: each node says its peer id, cluster id and port over mDNS.

Only nodes of the same cluster id are dialled; the hello then proves the key.
"""

from __future__ import annotations

import ipaddress
import logging
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

log = logging.getLogger(__name__)

SERVICE: Final = "_ipfs-accel._tcp.local."
_LOOKUP_MS: Final = 3000


@asynccontextmanager
async def announcing(
    peer_id: str, cluster: str, addresses: list[str], on_found: Callable[[list[str]], None]
) -> AsyncIterator[None]:
    """Announces this node and reports others' addresses while inside. A network without multicast is no error."""
    token = trio.lowlevel.current_trio_token()

    def found(addresses: list[str]) -> None:
        try:
            token.run_sync_soon(on_found, addresses)
        except trio.RunFinishedError:
            log.debug("found a peer after the end")

    announcement = _Announcement(peer_id, cluster, addresses, found)
    try:
        await trio.to_thread.run_sync(announcement.start)
    except Exception as error:
        log.warning("mDNS is not available: %s", error)
    try:
        yield
    finally:
        with trio.move_on_after(3, shield=True):
            await trio.to_thread.run_sync(announcement.stop, abandon_on_cancel=True)


class _Announcement:
    """The blocking half, in zeroconf's own thread."""

    def __init__(self, peer_id: str, cluster: str, addresses: list[str], on_found: Callable[[list[str]], None]) -> None:
        self._peer_id = peer_id
        self._cluster = cluster
        self._addresses = addresses
        self._on_found = on_found
        self._zeroconf: Any = None

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf

        # It logs a traceback whenever the network is away.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        hosts = [address.split("/")[2] for address in self._addresses]
        port = int(self._addresses[0].split("/")[4])
        self._zeroconf = Zeroconf()
        self._zeroconf.register_service(
            ServiceInfo(
                SERVICE,
                f"{self._peer_id}.{SERVICE}",
                addresses=[ipaddress.ip_address(host).packed for host in hosts],
                port=port,
                properties={"cluster": self._cluster},
                server=f"{self._peer_id[-32:]}.local.",
            )
        )
        ServiceBrowser(self._zeroconf, SERVICE, handlers=[self._changed])

    def stop(self) -> None:
        if self._zeroconf is not None:
            self._zeroconf.close()

    def _changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if "Removed" in str(state_change) or name.startswith(self._peer_id):
            return
        info = zeroconf.get_service_info(service_type, name, _LOOKUP_MS)
        if info is None or info.properties.get(b"cluster") != self._cluster.encode():
            return
        peer_id = name.removesuffix(f".{SERVICE}")
        hosts = info.parsed_addresses()
        log.info("mDNS found %s at %s", peer_id, ", ".join(hosts))
        families = {4: "ip4", 6: "ip6"}
        self._on_found(
            [f"/{families[ipaddress.ip_address(host).version]}/{host}/tcp/{info.port}/p2p/{peer_id}" for host in hosts]
        )

"""Two hosts on one machine: network namespaces that a cable joins, which can be pulled.

    with TwoHosts() as hosts:
        subprocess.run(hosts.at(0, ["ip", "addr"]))
        hosts.unplug()

Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

_DEADLINE_S: Final = 20.0
_CABLE: Final = "cable0"


class NoNamespacesError(Exception):
    """This user, or this system, makes no network namespaces; the message says why."""


class TwoHosts:
    """Hosts 0 and 1, at 10.77.0.1 and 10.77.0.2, with nothing else on their network."""

    def __init__(self) -> None:
        self.names = tuple(f"ian-{os.getpid()}-{place}" for place in (1, 2))

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            raise NoNamespacesError("making network namespaces needs root and iproute2")
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._remove()
            raise NoNamespacesError(f"no network namespaces here: {error.stderr.strip()}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def at(self, place: int, command: Sequence[str]) -> list[str]:
        """The command as it runs on that host."""
        return ["ip", "netns", "exec", self.names[place], *command]

    def unplug(self) -> None:
        """Pulls the cable out of the second host."""
        _ip("-n", self.names[1], "link", "set", _CABLE, "down")

    def plug(self) -> None:
        _ip("-n", self.names[1], "link", "set", _CABLE, "up")
        self._route_multicast(self.names[1])

    def move(self, address: str) -> None:
        """Gives the second host another address, of 10.77.0.0/24."""
        _ip("-n", self.names[1], "addr", "flush", "dev", _CABLE)
        _ip("-n", self.names[1], "addr", "add", f"{address}/24", "dev", _CABLE)

    def _make(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
        ends = ["netns", self.names[0], "type", "veth", "peer", "name", _CABLE, "netns", self.names[1]]
        _ip("link", "add", _CABLE, *ends)
        for place, name in enumerate(self.names, 1):
            _ip("-n", name, "addr", "add", f"10.77.0.{place}/24", "dev", _CABLE)
            for device in ("lo", _CABLE):
                _ip("-n", name, "link", "set", device, "up")
            self._route_multicast(name)

    def _route_multicast(self, name: str) -> None:
        """Stands for the default route that a real host has."""
        _ip("-n", name, "route", "replace", "224.0.0.0/4", "dev", _CABLE)

    def _remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=_DEADLINE_S)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=_DEADLINE_S)

"""What both ends of a client's TCP connection share: how addresses are written, and noticing that the other is gone."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Final

_SHAPE: Final = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")


#: A laptop that went to sleep or lost its network is noticed after about two minutes, where the system can be told so.
_PROBES: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


@dataclass(frozen=True)
class HostPort:
    """`HOST:PORT` as people write it, IPv6 in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @staticmethod
    def parse(text: str) -> HostPort:
        """Raises ValueError."""
        match = _SHAPE.fullmatch(text.strip())
        if match is None or int(match["port"]) >= 1 << 16:
            raise ValueError(f"{text!r} is no HOST:PORT, which looks like 0.0.0.0:4012 or [::]:4012")
        return HostPort(match["six"] or match["host"], int(match["port"]))


def probes() -> list[tuple[int, int, int]]:
    """The options (level, name, value) of a socket that asks now and then whether the other side is still there."""
    known = [(getattr(socket, name), value) for name, value in _PROBES.items() if hasattr(socket, name)]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *((socket.IPPROTO_TCP, *each) for each in known)]

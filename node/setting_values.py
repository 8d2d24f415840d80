"""What a setting may be: each reads a flag, a variable or a value of `config.toml`, and raises ValueError."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any, Final

from .content.kubo_address import parse_authorization, parse_kubo, parse_url
from .tcp import HostPort

_SIZE: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_BACKENDS: Final = ("cpu", "openvino", "echo")


def size(value: Any) -> int:
    """Bytes from `8G`, `512M`, `1.5 GiB` or a number. Raises ValueError."""
    match = _SIZE.match(str(value).strip()) if not isinstance(value, bool) else None
    if not match:
        raise ValueError("a size looks like 8G or 512M")
    count = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
    if count <= 0:
        raise ValueError("a size is more than nothing")
    return count


def backends(value: Any) -> tuple[str, ...] | None:
    names = texts(value)
    if names == ("auto",):
        return None
    if names == ("none",):
        return ()
    for name in names:
        if name not in _BACKENDS:
            raise ValueError(f"there is no backend {name!r}; there are {', '.join(_BACKENDS)}, auto and none")
    return tuple(dict.fromkeys(names))


def threads(value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(number) is not int or not 1 <= number <= 1024:
        raise ValueError("threads are a whole number from 1 to 1024")
    return number


def seconds(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        number = 0.0
    if not 1 <= number <= 30 * 86_400:
        raise ValueError("this is a number of seconds, from 1 to 30 days")
    return number


def texts(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in given):
        raise ValueError("this is a list of texts, none of them empty")
    return tuple(each.strip() for each in given)


def peers(value: Any) -> tuple[str, ...]:
    addresses = texts(value)
    for peer in addresses:
        if not peer.startswith("/") or "/p2p/" not in peer:
            raise ValueError(f"{peer!r} is no peer's address, which looks like /ip4/192.168.1.5/tcp/4011/p2p/12D3KooW…")
    return addresses


def host_port(value: Any) -> HostPort:
    return HostPort.parse(str(value))


def token(value: Any) -> str:
    """An empty one is a variable of the shell that was not set; without this, a cluster of its own would begin."""
    if not str(value).strip():
        raise ValueError("it is empty")
    return str(value)


def switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("this is either true or false")


def one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if str(value) not in allowed:
            raise ValueError(f"it is one of {', '.join(allowed)}")
        return str(value)

    return read


def name(value: Any) -> str:
    if not re.fullmatch(r"[\w.\-]{1,64}", str(value)):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes")
    return str(value)


def default_name() -> str:
    return re.sub(r"[^\w.\-]", "-", socket.gethostname())[:64] or "node"


def half_of_memory() -> int:
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2


def all_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def kubo(value: Any) -> str:
    """The address of an IPFS daemon's RPC, as it was given."""
    parse_kubo(str(value))
    return str(value)


def authorization(value: Any) -> str:
    return parse_authorization(str(value))


def gateways(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_url(each) for each in texts(value)))

"""The configuration: one object, validated once. Flags over environment over `config.toml` in the data folder.

Only this file reads the environment. Every setting may be given as a flag (`--threads 4`), as a variable
(`IPFS_ACCEL_THREADS=4`) or in the file (`threads = 4`).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import socket
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..protocols.errors import AccelError, ErrorCode

ENVIRONMENT_PREFIX: Final = "IPFS_ACCEL_"
DEFAULT_PORT: Final = 4011
_MAX_SOCKET_PATH: Final = 104
_SIZE: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LEVELS: Final = ("debug", "info", "warning", "error")
_BACKENDS: Final = ("cpu", "openvino", "echo")


class Paths:
    """Where a node keeps what, under its data folder; the socket stands under the runtime folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.identity = data_dir / "identity.key"
        self.cluster_key = data_dir / "cluster.key"
        self.addresses = data_dir / "addresses.json"
        self.measurements = data_dir / "measurements.json"
        self.log = data_dir / "node.log"
        self.content = data_dir / "content"
        self.cache = data_dir / "cache"
        self.toml = data_dir / "config.toml"

    @cached_property
    def socket(self) -> Path:
        """Short whatever the data folder is called: a Unix socket's path has 104 bytes at most on some systems."""
        name = f"ian-{hashlib.sha256(str(self.data_dir.absolute()).encode()).hexdigest()[:12]}.sock"
        if runtime := os.environ.get("XDG_RUNTIME_DIR"):
            usual = Path(runtime) / "ipfs-accel-node" / name
            if len(str(usual).encode()) <= _MAX_SOCKET_PATH and _may_write(usual.parent):
                return usual
        return Path(tempfile.gettempdir()) / f"ipfs-accel-node-{os.getuid()}" / name


@dataclass(frozen=True)
class Config:
    """What a node runs with. `backends` None means all that are installed; sizes are bytes."""

    data_dir: Path
    backends: tuple[str, ...] | None
    threads: int
    memory_bytes: int
    precision: str
    node_name: str
    listen: tuple[str, ...]
    peers: tuple[str, ...]
    join: str | None
    mdns: bool
    log_level: str

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.data_dir)

    def as_dict(self) -> dict[str, Any]:
        """For showing; the join token is left out, as it holds the cluster's key."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "join"}
        return {
            name: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for name, v in shown.items()
        }


def default_data_dir() -> Path:
    """`IPFS_ACCEL_DATA_DIR`, else the platform's own place."""
    if given := os.environ.get(f"{ENVIRONMENT_PREFIX}DATA_DIR"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("ipfs-accel-node")


def load(flags: Mapping[str, Any], data_dir: Path | None = None) -> Config:
    """Puts the configuration together; `flags` that are None were not given.

    Raises:
        AccelError: bad-config, which names the setting and where its value came from.
    """
    folder = (data_dir or default_data_dir()).expanduser().absolute()
    file = _read_toml(Paths(folder).toml)
    values: dict[str, Any] = {}
    for name, (read, default) in _SETTINGS.items():
        value, source = _find(name, flags, file, Paths(folder).toml)
        values[name] = default() if value is None else _read(value, source, read)
    return Config(data_dir=folder, **values)


def _find(name: str, flags: Mapping[str, Any], file: Mapping[str, Any], path: Path) -> tuple[Any, str]:
    variable = ENVIRONMENT_PREFIX + name.upper()
    if flags.get(name) is not None:
        return flags[name], f"--{name.replace('_', '-')}"
    if variable in os.environ:
        return os.environ[variable], variable
    return file.get(name), f"{name} in {path}"


def _read(value: Any, source: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{source}: {error}", f"Its value was {value!r}.") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{path}: {error}", "Mend the file or remove it.") from None
    for key in content:
        if key not in _SETTINGS:
            close = difflib.get_close_matches(key, _SETTINGS, n=1)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(_SETTINGS)}."
            raise AccelError(ErrorCode.BAD_CONFIG, f"{path}: unknown key {key!r} in line {_line_of(path, key)}", meant)
    return content


def _line_of(path: Path, key: str) -> int:
    lines = path.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.strip().startswith(key)), 0)


def parse_size(value: Any) -> int:
    """Bytes from `8G`, `512M`, `1.5 GiB` or a number. Raises ValueError."""
    match = _SIZE.match(str(value).strip())
    if not match:
        raise ValueError("a size looks like 8G or 512M")
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
    if size <= 0:
        raise ValueError("a size is more than nothing")
    return size


def _backends(value: Any) -> tuple[str, ...] | None:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if names == ["auto"]:
        return None
    if names == ["none"]:
        return ()
    for name in names:
        if name not in _BACKENDS:
            raise ValueError(f"there is no backend {name!r}; there are {', '.join(_BACKENDS)}, auto and none")
    return tuple(dict.fromkeys(names))


def _threads(value: Any) -> int:
    threads = int(value)
    if not 1 <= threads <= 1024:
        raise ValueError("threads are from 1 to 1024")
    return threads


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(each.strip() for each in value.split(",")) if isinstance(value, str) else tuple(map(str, value))


def _peers(value: Any) -> tuple[str, ...]:
    peers = _texts(value)
    for peer in peers:
        if not peer.startswith("/") or "/p2p/" not in peer:
            raise ValueError(f"{peer!r} is no peer's address, which looks like /ip4/192.168.1.5/tcp/4011/p2p/12D3KooW…")
    return peers


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("this is either true or false")


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if str(value) not in allowed:
            raise ValueError(f"it is one of {', '.join(allowed)}")
        return str(value)

    return read


def _name(value: Any) -> str:
    if not re.fullmatch(r"[\w.\-]{1,64}", str(value)):
        raise ValueError("a name has 1 to 64 letters, digits, dots, dashes")
    return str(value)


def _default_name() -> str:
    return re.sub(r"[^\w.\-]", "-", socket.gethostname())[:64] or "node"


def _half_of_memory() -> int:
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2


def _all_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _may_write(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


#: Every setting: how it is read, and what it is when nobody says.
_SETTINGS: Final[dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]]] = {
    "backends": (_backends, lambda: None),
    "threads": (_threads, _all_cores),
    "memory_bytes": (parse_size, _half_of_memory),
    "precision": (_one_of("f32", "bf16"), lambda: "f32"),
    "node_name": (_name, _default_name),
    "listen": (_texts, lambda: (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}",)),
    "peers": (_peers, tuple),
    "join": (str, lambda: None),
    "mdns": (_switch, lambda: True),
    "log_level": (_one_of(*_LEVELS), lambda: "info"),
}

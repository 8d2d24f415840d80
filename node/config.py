"""The configuration: one object, validated once. Flags over environment over `config.toml` in the data folder.

Only this file reads the environment, except that `cli` looks whether a shell asks for completions. Every setting may
be given as a flag of `start` (`--memory 8G`), as a variable (`IPFS_ACCEL_MEMORY=8G`) or in the file
(`memory = "8G"`). A variable that is empty counts as not given.
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
from .tcp import HostPort

ENVIRONMENT_PREFIX: Final = "IPFS_ACCEL_"
_DATA_DIR_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}DATA_DIR"
#: What commands read: the node they go to, and the token they show it.
CLIENT_VARIABLES: Final = ("NODE", "CLIENT_TOKEN")
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
        self.downloads = data_dir / "downloads"
        self.toml = data_dir / "config.toml"
        self.client_certificate = data_dir / "client-door.pem"
        self.client_secret = data_dir / "client.secret"

    @cached_property
    def socket(self) -> Path:
        """Where a node listens. Short whatever the data folder is called: some systems allow a path of 104 bytes."""
        if runtime := os.environ.get("XDG_RUNTIME_DIR"):
            usual = Path(runtime) / "ipfs-accel-node" / self._socket_name
            if len(str(usual).encode()) <= _MAX_SOCKET_PATH and _may_write(usual.parent):
                return usual
        return self._temporary_socket

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Where a client looks, the likeliest place first: the node may have been started where the environment
        names another runtime folder than here, or none, as it does under cron and for services."""
        of_user = Path(f"/run/user/{os.getuid()}/ipfs-accel-node") / self._socket_name
        return tuple(dict.fromkeys((self.socket, of_user, self._temporary_socket)))

    @property
    def _temporary_socket(self) -> Path:
        return Path(tempfile.gettempdir()) / f"ipfs-accel-node-{os.getuid()}" / self._socket_name

    @property
    def _socket_name(self) -> str:
        return f"ian-{hashlib.sha256(os.fsencode(self.data_dir.absolute())).hexdigest()[:12]}.sock"


@dataclass(frozen=True)
class Config:
    """What a node runs with. `backends` None means all that are installed; sizes are bytes."""

    data_dir: Path
    backends: tuple[str, ...] | None
    threads: int
    memory_bytes: int
    disk_limit: int | None
    precision: str
    node_name: str
    listen: tuple[str, ...]
    peers: tuple[str, ...]
    join: str | None
    mdns: bool
    log_level: str
    log_json: bool
    listen_clients: HostPort | None
    public: bool
    ipfs_peers: tuple[str, ...]

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.data_dir)

    def as_dict(self) -> dict[str, Any]:
        """For showing; the join token is left out, as it holds the cluster's key."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "join"}
        return {name: plain(value) for name, value in shown.items()}


def plain(value: Any) -> Any:
    """A setting's value as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, (Path, HostPort)) else value


def default_data_dir() -> Path:
    """`IPFS_ACCEL_DATA_DIR`, else the platform's own place."""
    if given := os.environ.get(_DATA_DIR_VARIABLE):
        return absolute(given)
    from platformdirs import user_data_path

    return user_data_path("ipfs-accel-node")


def absolute(folder: Path | str) -> Path:
    """The same folder from the root, `~` resolved. Raises AccelError bad-config for the `~` of an unknown user."""
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{folder} names no user of this machine", "Give the path.") from None


def make_data_dir(folder: Path) -> Path:
    """The folder itself, made if need be. Raises AccelError bad-config, permission-denied."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        denied = isinstance(error, PermissionError)
        code = ErrorCode.PERMISSION_DENIED if denied else ErrorCode.BAD_CONFIG
        raise AccelError(code, f"{folder}: {error.strerror}", "Choose another --data-dir.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccelError(ErrorCode.PERMISSION_DENIED, f"{folder} is not this user's to write", "Check who owns it.")
    return folder


@dataclass(frozen=True)
class Found:
    """One setting as it counts: `origin` is flag, variable, file or default; `source` says which of them."""

    key: str
    value: Any
    origin: str
    source: str


def load(flags: Mapping[str, Any], data_dir: Path | None = None) -> Config:
    """Puts the configuration together; `flags` that are None were not given.

    Raises:
        AccelError: bad-config, which names the setting and where its value came from.
    """
    folder = find_data_dir(data_dir).value
    return Config(data_dir=folder, **{name: found.value for name, found in explain(flags, folder).items()})


def explain(flags: Mapping[str, Any], folder: Path) -> dict[str, Found]:
    """Every setting but the data folder itself, with where its value came from. Raises AccelError bad-config."""
    _check_environment()
    file = _File(Paths(folder).toml)
    return {name: _explain(setting, flags.get(name), file) for name, setting in _SETTINGS.items()}


def find_data_dir(flag: Path | None) -> Found:
    """Raises AccelError bad-config."""
    if flag:
        return Found("data_dir", absolute(flag), "flag", "--data-dir")
    given = os.environ.get(_DATA_DIR_VARIABLE)
    return Found("data_dir", default_data_dir(), *(("variable", _DATA_DIR_VARIABLE) if given else ("default", "")))


def variable(key: str) -> str | None:
    """A variable that no setting of a node has: where commands go, and the token they show there."""
    return os.environ.get(ENVIRONMENT_PREFIX + key) or None


@dataclass(frozen=True)
class _Setting:
    """How one setting is read, what it is when nobody says, its flag, and its key in the file and the environment."""

    read: Callable[[Any], Any]
    default: Callable[[], Any]
    flag: str
    key: str


def _explain(setting: _Setting, flag: Any, file: _File) -> Found:
    value, origin, source = _find(setting, flag, file)
    read = setting.default() if value is None else _read(value, source, setting.read)
    return Found(setting.key, read, origin, source)


def _find(setting: _Setting, flag: Any, file: _File) -> tuple[Any, str, str]:
    """The value as it was given, None when nobody did; where, and the name it has there."""
    if flag is not None:
        return flag, "flag", setting.flag
    name = ENVIRONMENT_PREFIX + setting.key.upper()
    if given := os.environ.get(name):
        return given, "variable", name
    if setting.key in file.content:
        return file.content[setting.key], "file", f"{setting.key} in {file.path}, line {file.line_of(setting.key)}"
    return None, "default", ""


def _read(value: Any, source: str, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{source}: {error}", f"Its value was {value!r}.") from None


def _check_environment() -> None:
    known = [ENVIRONMENT_PREFIX + setting.key.upper() for setting in _SETTINGS.values()]
    others = (_DATA_DIR_VARIABLE, *(ENVIRONMENT_PREFIX + key for key in CLIENT_VARIABLES))
    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX) and name not in {*known, *others}:
            raise _unknown(f"unknown variable {name}", name, [*known, *others])


class _File:
    """`config.toml`, empty where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = ""
        try:
            self._text = path.read_text(encoding="utf-8")
            self.content = tomllib.loads(self._text)
        except FileNotFoundError:
            self.content = {}
        except NotADirectoryError:
            raise AccelError(ErrorCode.BAD_CONFIG, f"{path.parent} is no folder", "Check --data-dir.") from None
        except tomllib.TOMLDecodeError as error:
            raise AccelError(ErrorCode.BAD_CONFIG, f"{path}{self._told(error)}", "Mend that line.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise AccelError(ErrorCode.BAD_CONFIG, f"{path}: {error}", "Mend the file or remove it.") from None
        keys = [setting.key for setting in _SETTINGS.values()]
        for key in self.content:
            if key not in keys:
                raise _unknown(f"{path}: unknown key {key!r} in line {self.line_of(key)}", key, keys)

    def _told(self, error: tomllib.TOMLDecodeError) -> str:
        """What is no TOML, with its line and column, which its message has unless the file just ends too early."""
        what, _, where = str(error).removesuffix(")").partition(" (at ")
        lines = self._text.splitlines() or [""]
        place = where if where.startswith("line ") else f"line {len(lines)}, column {len(lines[-1]) + 1}"
        return f", {place}: {what}"

    def line_of(self, key: str) -> int:
        """Where `key`, or a table of that name, stands; 1 when it is written in a way this does not see."""
        wanted = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[.=\]]""")
        lines = enumerate(self._text.splitlines(), 1)
        return next((number for number, line in lines if wanted.match(line)), 1)


def _unknown(message: str, given: str, known: list[str]) -> AccelError:
    close = difflib.get_close_matches(given, known, n=1)
    meant = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known)}."
    return AccelError(ErrorCode.BAD_CONFIG, message, meant)


def parse_size(value: Any) -> int:
    """Bytes from `8G`, `512M`, `1.5 GiB` or a number. Raises ValueError."""
    match = _SIZE.match(str(value).strip()) if not isinstance(value, bool) else None
    if not match:
        raise ValueError("a size looks like 8G or 512M")
    size = int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
    if size <= 0:
        raise ValueError("a size is more than nothing")
    return size


def _backends(value: Any) -> tuple[str, ...] | None:
    names = _texts(value)
    if names == ("auto",):
        return None
    if names == ("none",):
        return ()
    for name in names:
        if name not in _BACKENDS:
            raise ValueError(f"there is no backend {name!r}; there are {', '.join(_BACKENDS)}, auto and none")
    return tuple(dict.fromkeys(names))


def _threads(value: Any) -> int:
    threads = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(threads) is not int or not 1 <= threads <= 1024:
        raise ValueError("threads are a whole number from 1 to 1024")
    return threads


def _texts(value: Any) -> tuple[str, ...]:
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(each, str) and each.strip() for each in texts):
        raise ValueError("this is a list of texts, none of them empty")
    return tuple(each.strip() for each in texts)


def peer_addresses(value: Any) -> tuple[str, ...]:
    """Addresses that end in a peer id. Raises ValueError."""
    peers = _texts(value)
    for peer in peers:
        if not peer.startswith("/") or "/p2p/" not in peer:
            raise ValueError(f"{peer!r} is no peer's address, which looks like /ip4/192.168.1.5/tcp/4011/p2p/12D3KooW…")
    return peers


def _host_port(value: Any) -> HostPort:
    return HostPort.parse(str(value))


def _token(value: Any) -> str:
    """An empty one is a variable of the shell that was not set; without this, a cluster of its own would begin."""
    if not str(value).strip():
        raise ValueError("it is empty")
    return str(value)


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


_SETTINGS: Final = {
    "backends": _Setting(_backends, lambda: None, "--backends", "backends"),
    "threads": _Setting(_threads, _all_cores, "--threads", "threads"),
    "memory_bytes": _Setting(parse_size, _half_of_memory, "--memory", "memory"),
    "disk_limit": _Setting(parse_size, lambda: None, "--disk-limit", "disk_limit"),
    "precision": _Setting(_one_of("f32", "bf16"), lambda: "f32", "--precision", "precision"),
    "node_name": _Setting(_name, _default_name, "--name", "name"),
    "listen": _Setting(_texts, lambda: (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}",), "--listen", "listen"),
    "peers": _Setting(peer_addresses, tuple, "--peer", "peers"),
    "join": _Setting(_token, lambda: None, "--join", "join"),
    "mdns": _Setting(_switch, lambda: True, "--no-mdns", "mdns"),
    "log_level": _Setting(_one_of(*_LEVELS), lambda: "info", "--log-level", "log_level"),
    "log_json": _Setting(_switch, lambda: False, "--log-json", "log_json"),
    "listen_clients": _Setting(_host_port, lambda: None, "--listen-clients", "listen_clients"),
    "public": _Setting(_switch, lambda: False, "--public", "public"),
    "ipfs_peers": _Setting(peer_addresses, tuple, "--ipfs-peer", "ipfs_peers"),
}

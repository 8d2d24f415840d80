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
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..backends.precision import AUTO
from ..backends.precision import NAMES as PRECISIONS
from ..protocols.errors import AccelError, ErrorCode
from . import setting_values as values
from .content.profile_names import DEFAULT_NAME, NAMES
from .tcp import HostPort

ENVIRONMENT_PREFIX: Final = "IPFS_ACCEL_"
_DATA_DIR_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}DATA_DIR"
#: What commands read: the node they go to, and the token they show it.
CLIENT_VARIABLES: Final = ("NODE", "CLIENT_TOKEN")
DEFAULT_PORT: Final = 4011
_MAX_SOCKET_PATH: Final = 104
#: Settings that are shown nowhere.
SECRET: Final = ("join", "kubo_auth")
_LEVELS: Final = ("debug", "info", "warning", "error")


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
        self.pins = data_dir / "pins"
        self.cache = data_dir / "cache"
        self.published = data_dir / "published.json"
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
    pin_grace_s: float
    precision: str
    node_name: str
    listen: tuple[str, ...]
    peers: tuple[str, ...]
    join: str | None
    mdns: bool
    log_level: str
    log_json: bool
    listen_clients: HostPort | None
    cid_profile: str
    kubo: str | None
    kubo_auth: str | None
    kubo_publish: bool
    gateways: tuple[str, ...]
    public: bool
    ipfs_peers: tuple[str, ...]

    @cached_property
    def paths(self) -> Paths:
        return Paths(self.data_dir)

    def as_dict(self) -> dict[str, Any]:
        """For showing, without what is secret: the join token holds the cluster's key."""
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in SECRET}
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


def model_caches() -> list[tuple[str, Path]]:
    """Where Hugging Face, sentence-transformers and torch hub keep models, by their own variables and defaults."""
    default = Path(_given("XDG_CACHE_HOME") or "~/.cache")
    torch = Path(_given("TORCH_HOME") or default / "torch")
    hub = _given("HF_HUB_CACHE") or _given("HUGGINGFACE_HUB_CACHE")
    sentences = _given("SENTENCE_TRANSFORMERS_HOME")
    found = (
        ("huggingface", Path(hub) if hub else Path(_given("HF_HOME") or default / "huggingface") / "hub"),
        ("sentence-transformers", Path(sentences) if sentences else torch / "sentence_transformers"),
        ("torch", torch / "hub" / "checkpoints"),
    )
    return [(kind, absolute(path)) for kind, path in found]


def _given(name: str) -> str | None:
    return os.environ.get(name) or None


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
        shown = "" if read is values.authorization else f"Its value was {value!r}."
        raise AccelError(ErrorCode.BAD_CONFIG, f"{source}: {error}", shown) from None


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


def _may_write(folder: Path) -> bool:
    while not folder.exists():
        folder = folder.parent
    return os.access(folder, os.W_OK)


_SETTINGS: Final = {
    "backends": _Setting(values.backends, lambda: None, "--backends", "backends"),
    "threads": _Setting(values.threads, values.all_cores, "--threads", "threads"),
    "memory_bytes": _Setting(values.size, values.half_of_memory, "--memory", "memory"),
    "disk_limit": _Setting(values.size, lambda: None, "--disk-limit", "disk_limit"),
    "pin_grace_s": _Setting(values.seconds, lambda: 300.0, "--pin-grace", "pin_grace"),
    "precision": _Setting(values.one_of(AUTO, *PRECISIONS), lambda: AUTO, "--precision", "precision"),
    "node_name": _Setting(values.name, values.default_name, "--name", "name"),
    "listen": _Setting(values.texts, lambda: (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}",), "--listen", "listen"),
    "peers": _Setting(values.peers, tuple, "--peer", "peers"),
    "join": _Setting(values.token, lambda: None, "--join", "join"),
    "mdns": _Setting(values.switch, lambda: True, "--no-mdns", "mdns"),
    "log_level": _Setting(values.one_of(*_LEVELS), lambda: "info", "--log-level", "log_level"),
    "log_json": _Setting(values.switch, lambda: False, "--log-json", "log_json"),
    "listen_clients": _Setting(values.host_port, lambda: None, "--listen-clients", "listen_clients"),
    "cid_profile": _Setting(values.one_of(*NAMES), lambda: DEFAULT_NAME, "--cid-profile", "cid_profile"),
    "kubo": _Setting(values.kubo, lambda: None, "--kubo", "kubo"),
    "kubo_auth": _Setting(values.authorization, lambda: None, "kubo_auth", "kubo_auth"),
    "kubo_publish": _Setting(values.switch, lambda: False, "--kubo-publish", "kubo_publish"),
    "gateways": _Setting(values.gateways, tuple, "--gateway", "gateways"),
    "public": _Setting(values.switch, lambda: False, "--public", "public"),
    "ipfs_peers": _Setting(values.peers, tuple, "--ipfs-peer", "ipfs_peers"),
}
#: The settings by the names that `Config` has for them; a flag of `start` goes by the same.
FIELDS: Final = tuple(_SETTINGS)

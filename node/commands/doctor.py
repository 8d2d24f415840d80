"""`doctor`: what was found, what is missing, what to do. It runs where nothing else does, so it imports little."""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...protocols.errors import AccelError, ErrorCode
from ..config import Config, load
from .output import console, print_json, safe, size, table

_PROBE = (
    "import sys;from ipfs_accel_node.backends import registry;"
    "p=registry.create(sys.argv[1]).probe();print(f'{p.device}, {p.library}')"
)
_PROBE_TIMEOUT_S = 120
_NODE_TIMEOUT_S = 10
_LEAST_FREE = 2 << 30
#: Fastecdsa, which libp2p brings, has no wheel for Linux: it is built, with a compiler and the headers of GMP.
_BUILD = "needs a C compiler, Python's and GMP's headers: sudo apt-get install gcc libc6-dev python3-dev libgmp-dev"
_INSTALL = "pip install ipfs-accel-node"
_TORCH = "pip install 'ipfs-accel-node[torch]' for the cpu backend"
_OPENVINO = "pip install 'ipfs-accel-node[openvino]' for the openvino backend"
_REQUIRED = ("libp2p", "fastecdsa", "trio", "anyio", "msgpack", "cryptography", "multiformats", "numpy", "rich")
_ENGINES = {"torch": _TORCH, "transformers": _TORCH, "tokenizers": _TORCH, "openvino": _OPENVINO,
            "optimum-intel": _OPENVINO}  # fmt: skip
#: No clock of a machine that runs this is earlier: 2025 began then.
_EARLIEST = 1_735_689_600


@dataclass(frozen=True)
class Check:
    """One thing looked at. `code` is a stable code of `docs/errors.md` where it is not in order."""

    name: str
    ok: bool
    required: bool
    detail: str
    code: str = ""
    fix: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Exit status 1 when something that is required is not in order."""
    checks = [_python(), *_libraries(), *_backends(), _clock(), *_configured(options.data_dir)]
    failed = any(check.required and not check.ok for check in checks)
    if options.json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    elif _installed("rich"):
        _show(checks)
    else:
        print("\n".join(f"{_mark(each)}  {each.name}: {each.detail}  {each.code}  {each.fix}" for each in checks))
    return int(failed)


def _show(checks: list[Check]) -> None:
    rows = table("", "what", "found", "what to do")
    for check in checks:
        colour = {"ok": "green", "no": "red"}.get(_mark(check), "yellow")
        code = f" [dim]{check.code}[/]" if check.code else ""
        rows.add_row(f"[{colour}]{_mark(check)}[/]", check.name, safe(check.detail) + code, safe(check.fix))
    console().print(rows)


def _mark(check: Check) -> str:
    return "ok" if check.ok else "no" if check.required else "–"


def _python() -> Check:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("Python", True, True, found)
    return Check("Python", False, True, found, ErrorCode.BAD_CONFIG, "Use 3.11 to 3.13.")


def _libraries() -> list[Check]:
    required = [_library(name, True, f"{name} {_BUILD}" if name == "fastecdsa" else _INSTALL) for name in _REQUIRED]
    return [*required, *(_library(name, False, fix) for name, fix in _ENGINES.items())]


def _library(name: str, required: bool, fix: str) -> Check:
    if found := _installed(name):
        return Check(name, True, required, found)
    return Check(name, False, required, "not installed", ErrorCode.BACKEND_MISSING, fix)


def _installed(name: str) -> str:
    """The version of a distribution, empty when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _backends() -> list[Check]:
    return [_backend(name) for name, library in (("cpu", "torch"), ("openvino", "openvino")) if _installed(library)]


def _backend(name: str) -> Check:
    """Proved by computing, in a process apart."""
    what = f"backend {name}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        silent = f"did not compute within {_PROBE_TIMEOUT_S} s"
        return Check(what, False, False, silent, ErrorCode.BACKEND_MISSING, "Reinstall its library.")
    if done.returncode == 0:
        return Check(what, True, False, f"computes on {done.stdout.strip()}")
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Check(what, False, False, last[:200], ErrorCode.BACKEND_MISSING, "Reinstall its library.")


def _clock() -> Check:
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if time.time() >= _EARLIEST:
        return Check("clock", True, False, shown)
    return Check("clock", False, False, shown, ErrorCode.BAD_CONFIG, "Set it: packages cannot be fetched with this.")


def _configured(data_dir: Path | None) -> list[Check]:
    try:
        config = load({}, data_dir)
    except AccelError as error:
        return [Check("configuration", False, True, error.message, error.code, error.hint)]
    node = _node(config)
    ports = [] if node.ok else [*map(_port, config.listen), *_clients_port(config)]
    in_order = Check("configuration", True, True, str(config.paths.toml if config.paths.toml.exists() else "defaults"))
    return [in_order, _data_folder(config), _disk(config), _socket(config), node, *ports]


def _data_folder(config: Config) -> Check:
    folder = _nearest(config.data_dir)
    if not folder.is_dir():
        why = f"{folder} is no folder"
        return Check("data folder", False, True, why, ErrorCode.BAD_CONFIG, "Choose another --data-dir.")
    return _writable("data folder", folder, config.data_dir)


def _disk(config: Config) -> Check:
    free = shutil.disk_usage(_nearest(config.data_dir)).free
    if free > _LEAST_FREE:
        return Check("disk", True, False, f"{size(free)} free")
    return Check("disk", False, False, f"{size(free)} free", ErrorCode.DISK_FULL, "Make room for models.")


def _socket(config: Config) -> Check:
    path = config.paths.socket
    return _writable("socket", _nearest(path.parent), path)


def _writable(what: str, folder: Path, shown: Path) -> Check:
    if os.access(folder, os.W_OK | os.X_OK):
        return Check(what, True, True, str(shown))
    why = f"{folder} is not this user's to write"
    return Check(what, False, True, why, ErrorCode.PERMISSION_DENIED, f"Check who owns {folder}.")


def _nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that would have to take it."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _node(config: Config) -> Check:
    try:
        from ..client import Client

        with Client(config.data_dir) as client:
            facts = client.status(timeout=_NODE_TIMEOUT_S)
    except ImportError as error:
        return Check("node", False, False, f"cannot be asked: {error}", ErrorCode.BACKEND_MISSING, _INSTALL)
    except AccelError as error:
        if error.code == ErrorCode.NOT_RUNNING:
            return Check("node", False, False, "not running", error.code, error.hint)
        fix = "See the node's log; stop it with SIGKILL and start it again."
        return Check("node", False, True, error.message, error.code, fix)
    states = ", ".join(_state_of(backend) for backend in facts["backends"]) or "no backends"
    return Check("node", True, False, f"{facts['state']}, {facts['peers']} peers, {states}")


def _state_of(backend: dict[str, str]) -> str:
    reason = f" ({backend['reason']})" if backend["state"] == "failed" else ""
    return f"{backend['name']} {backend['state']}{reason}"


def _port(address: str) -> Check:
    """Whether a node could listen there; other kinds of addresses are left to the node."""
    match address.split("/"):
        case ["", "ip4" | "ip6" as kind, host, "tcp", port] if port.isdecimal() and int(port) < 1 << 16:
            family = socket.AF_INET if kind == "ip4" else socket.AF_INET6
        case _:
            return Check("port", False, True, f"{address} is no address", ErrorCode.BAD_CONFIG, "Correct `listen`.")
    return _free(family, host, int(port), address, "--listen")


def _clients_port(config: Config) -> list[Check]:
    if config.listen_clients is None:
        return []
    host, port = config.listen_clients.host, config.listen_clients.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return [_free(family, host, port, f"{config.listen_clients} for clients", "--listen-clients")]


def _free(family: int, host: str, port: int, shown: str, flag: str) -> Check:
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        codes = {errno.EADDRINUSE: ErrorCode.PORT_IN_USE, errno.EACCES: ErrorCode.PERMISSION_DENIED}
        code = codes.get(error.errno or 0, ErrorCode.BAD_CONFIG)
        return Check("port", False, True, f"{shown}: {error.strerror}", code, f"Choose another with {flag}.")
    return Check("port", True, True, f"{shown} can be listened on")

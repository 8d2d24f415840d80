"""`doctor`: what was found, what is missing, what to do."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..config import Config, load
from .output import console, print_json, size, table

_PROBE = (
    "import sys;from ipfs_accel_node.backends import registry;"
    "p=registry.create(sys.argv[1]).probe();print(f'{p.device}, {p.library}')"
)
_PROBE_TIMEOUT_S = 120
_LEAST_FREE = 2 << 30


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
    checks = [_python(), *_libraries(), *_configured(options.data_dir)]
    failed = any(check.required and not check.ok for check in checks)
    if options.json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
        return int(failed)
    rows = table("", "what", "found", "what to do")
    for check in checks:
        mark = "[green]ok[/]" if check.ok else ("[red]no[/]" if check.required else "[yellow]–[/]")
        rows.add_row(mark, check.name, check.detail + (f" [dim]{check.code}[/]" if check.code else ""), check.fix)
    console().print(rows)
    return int(failed)


def _python() -> Check:
    found = sys.version.split()[0]
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Check("Python", ok, True, found, "" if ok else ErrorCode.BAD_CONFIG, "" if ok else "Use 3.11 to 3.13.")


def _libraries() -> list[Check]:
    needed = [_library(name, True, "pip install ipfs-accel-node") for name in ("libp2p", "trio", "msgpack")]
    engines = [
        _library("torch", False, "pip install 'ipfs-accel-node[torch]' for the cpu backend"),
        _library("transformers", False, "pip install 'ipfs-accel-node[torch]'"),
        _library("openvino", False, "pip install 'ipfs-accel-node[openvino]' for the openvino backend"),
    ]
    return [
        *needed,
        *engines,
        *(_backend(name) for name, module in (("cpu", "torch"), ("openvino", "openvino")) if _has(module)),
    ]


def _library(name: str, required: bool, fix: str) -> Check:
    try:
        return Check(name, True, required, version(name))
    except PackageNotFoundError:
        return Check(name, False, required, "not installed", ErrorCode.BACKEND_MISSING, fix)


def _has(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _backend(name: str) -> Check:
    """Proved by computing, in a process apart."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Check(
            f"backend {name}", False, False, "it did not answer", ErrorCode.BACKEND_MISSING, "Look at its log."
        )
    if done.returncode == 0:
        return Check(f"backend {name}", True, False, f"computes on {done.stdout.strip()}")
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Check(f"backend {name}", False, False, last[:200], ErrorCode.BACKEND_MISSING, "Reinstall its library.")


def _configured(data_dir: Path | None) -> list[Check]:
    try:
        config = load({}, data_dir)
    except AccelError as error:
        return [Check("configuration", False, True, error.message, error.code, error.hint)]
    looks: list[Callable[[Config], Check]] = [_data_folder, _running]
    return [Check("configuration", True, True, str(config.data_dir)), *(look(config) for look in looks)]


def _data_folder(config: Config) -> Check:
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free > _LEAST_FREE
    return Check("disk", ok, False, f"{size(free)} free", "" if ok else ErrorCode.DISK_FULL, "" if ok else "Make room.")


def _running(config: Config) -> Check:
    try:
        with Client(config.data_dir) as client:
            facts = client.status()
    except AccelError as error:
        return Check("node", False, False, "not running", error.code, error.hint)
    states = ", ".join(f"{backend['name']} {backend['state']}" for backend in facts["backends"]) or "no backends"
    return Check("node", True, False, f"{facts['state']}, {facts['peers']} peers, {states}")

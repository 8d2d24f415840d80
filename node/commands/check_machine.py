"""What `doctor` finds of this machine: its clock, memory, disk and network, and the node's own files on it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from pathlib import Path

from ...protocols.errors import ErrorCode
from ..config import Config
from ..content.lock import holder_of
from .check import Check, nearest, writable
from .output import size

#: No clock of a machine that runs this is earlier: 2025 began then.
_EARLIEST = 1_735_689_600
_LEAST_FREE = 2 << 30
_LEAST_MEMORY = 512 << 20
#: Where mDNS speaks; nothing is sent there to find out.
_MDNS = ("224.0.0.251", 5353)
_LOG_TAIL = 256 << 10
_LOG_AGE_S = 86_400
_LOGGED = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (ERROR|CRITICAL) (.*)$", re.MULTILINE)


def clock() -> Check:
    shown = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if time.time() >= _EARLIEST:
        return Check("clock", True, False, shown)
    return Check("clock", False, False, shown, ErrorCode.BAD_CONFIG, "Set it: packages cannot be fetched with this.")


def memory(config: Config) -> Check:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, _available(page)
    shown = f"{size(free)} of {size(total)} free, {size(config.memory_bytes)} for models"
    if config.memory_bytes > total:
        fix = "Give models less than the machine has: --memory."
    elif free < _LEAST_MEMORY:
        fix = "End other programs, or models will not load."
    else:
        return Check("memory", True, False, shown)
    return Check("memory", False, False, shown, ErrorCode.OUT_OF_MEMORY, fix)


def _available(page: int) -> int:
    """Bytes that programs can still have; what the kernel caches counts where it says so."""
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        told = None
    return int(told[1]) << 10 if told else os.sysconf("SC_PHYS_PAGES") * page


def disk(config: Config) -> Check:
    free = shutil.disk_usage(nearest(config.data_dir)).free
    if free > _LEAST_FREE:
        return Check("disk", True, False, f"{size(free)} free")
    return Check("disk", False, False, f"{size(free)} free", ErrorCode.DISK_FULL, "Make room for models.")


def data_folder(config: Config, *, node_runs: bool) -> Check:
    """Whether it can be written, and is not held by a process that answers nobody."""
    folder = nearest(config.data_dir)
    if not folder.is_dir():
        why = f"{folder} is no folder"
        return Check("data folder", False, True, why, ErrorCode.BAD_CONFIG, "Choose another --data-dir.")
    if not node_runs and (holder := holder_of(config.paths.content)):
        why = f"process {holder} uses {config.data_dir}, and no node answers"
        fix = "It starts or stops, or a command is at work: look again, then end that process."
        return Check("data folder", False, True, why, ErrorCode.ALREADY_RUNNING, fix)
    return writable("data folder", folder, config.data_dir)


def socket_folder(config: Config) -> Check:
    path = config.paths.socket
    return writable("socket", nearest(path.parent), path)


def port(address: str) -> Check:
    """Whether a node could listen there; other kinds of addresses are left to the node."""
    match address.split("/"):
        case ["", "ip4" | "ip6" as kind, host, "tcp", port] if port.isdecimal() and int(port) < 1 << 16:
            family = socket.AF_INET if kind == "ip4" else socket.AF_INET6
        case _:
            return Check("port", False, True, f"{address} is no address", ErrorCode.BAD_CONFIG, "Correct `listen`.")
    return _free(family, host, int(port), address, "--listen")


def clients_port(config: Config) -> list[Check]:
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


def multicast(config: Config) -> Check:
    """Whether the system has a way for mDNS, by which nodes of one network find each other."""
    if not config.mdns:
        return Check("mDNS", True, False, "turned off")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_MDNS)
            own = probe.getsockname()[0]
    except OSError as error:
        why = f"no way to {_MDNS[0]}: {error.strerror}"
        fix = "Connect to a network, or tell nodes of each other with --join or --peer."
        return Check("mDNS", False, False, why, ErrorCode.NETWORK_UNREACHABLE, fix)
    return Check("mDNS", True, False, f"multicast goes out from {own}")


def log(config: Config) -> Check:
    """How many errors the node logged lately; the newest is shown."""
    path = config.paths.log
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            text = file.read(_LOG_TAIL).decode(errors="replace")
    except OSError:
        return Check("log", True, False, "none yet")
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - _LOG_AGE_S))
    recent = [found for found in _LOGGED.findall(text) if found[0] >= since]
    if not recent:
        return Check("log", True, False, f"{path}: no errors in the last day")
    newest = f"{len(recent)} errors in the last day, the newest: {recent[-1][2][:160]}"
    return Check("log", False, False, newest, ErrorCode.INTERNAL, f"Read {path}; report what should not be.")

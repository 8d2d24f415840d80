"""A module of this package run once in a process of its own: with a deadline, and ended when this process ends.

`run_module`, `started_module` and `told` are for whoever asks for it, the rest for the module itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

#: unshare(2): a user namespace of its own, and in it a network that has nobody.
_NEW_USER: Final = 0x10000000
_NEW_NETWORK: Final = 0x40000000


def run_module(name: str, *arguments: str, timeout_s: float, with_errors: bool) -> tuple[int, bytes]:
    """Its exit status and what it printed, on standard error too `with_errors`. Raises TimeoutError."""
    with started_module(name, *arguments, with_errors=with_errors) as (child, output):
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{name} took over {timeout_s:.0f} s") from None
        output.seek(0)
        return status, output.read()


@contextmanager
def started_module(
    name: str, *arguments: str, with_errors: bool
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """It while it runs, and the file that it prints to; killed at the end.

    Nothing is written to its standard input: that it ends tells the child that whoever asked for this is gone.
    """
    command = [sys.executable, "-m", f"{__package__}.{name}", *arguments]
    with tempfile.TemporaryFile() as output:
        errors = output if with_errors else subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors)
        try:
            yield child, output
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()


def told(said: bytes) -> dict[str, Any]:
    """The JSON object that a module printed; nothing where it printed anything else."""
    try:
        content = json.loads(said)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def end_with_parent() -> None:
    """Ends this process when standard input does: then whoever asked for it is gone, as nobody writes there."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def leave_the_network() -> None:
    """Before there are threads. Where the system has no namespaces for us, the limits have to do."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)


def limit(memory: int, cpu_s: int) -> None:
    """Bounds what this process takes from now on: `memory` bytes more than it has, as large files, and its time."""
    bound = _used() + memory
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))


def _used() -> int:
    """Addresses that are taken already, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

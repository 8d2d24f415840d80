"""A module of this package run once in a process of its own: with a deadline, and ended when this process ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile


def run_module(name: str, *arguments: str, timeout_s: float, with_errors: bool) -> tuple[int, bytes]:
    """Its exit status and what it printed, on standard error too `with_errors`. Raises TimeoutError.

    Nothing is written to its standard input: that it ends tells the child that whoever asked for this is gone.
    """
    command = [sys.executable, "-m", f"{__package__}.{name}", *arguments]
    with tempfile.TemporaryFile() as output:
        errors = output if with_errors else subprocess.DEVNULL
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=errors)
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{name} took over {timeout_s:.0f} s") from None
        finally:
            child.kill()
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        output.seek(0)
        return status, output.read()

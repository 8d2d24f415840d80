"""A model with random weights, made by a throwaway process: see `make` for what keeps it in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final
from uuid import uuid4

from .child import run_module, told
from .interface import BackendError, OnProgress, no_progress
from .making_shapes import MADE, TINY

TIMEOUT_S: Final = 300.0
_MOST_SEED: Final = (1 << 63) - 1
_HINTS: Final = {
    "backend-missing": f"{sys.executable} -m pip install 'ipfs-accel-node[torch]'",
    "disk-full": "Remove something, or choose another disk.",
    "out-of-memory": "Make a tiny one.",
}


def check_made(family: str, size: str, seed: int = 0) -> None:
    """Raises BackendError bad-input for what is not made."""
    if family not in MADE:
        raise BackendError("bad-input", f"no family {family!r} is made", f"There are {', '.join(MADE)}.")
    if size not in MADE[family]:
        raise BackendError(
            "bad-input", f"{family} is not made in the size {size!r}", f"Give {', '.join(MADE[family])}."
        )
    if not 0 <= seed <= _MOST_SEED:
        raise BackendError("bad-input", f"a seed is from 0 to {_MOST_SEED}")


def make_apart(
    folder: Path,
    family: str,
    size: str = TINY,
    seed: int = 0,
    progress: OnProgress = no_progress,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Makes `folder`, which must not be there yet; it is whole when it appears.

    Raises:
        BackendError: bad-input, backend-missing, disk-full, out-of-memory, deadline-exceeded, internal.
    """
    check_made(family, size, seed)
    if folder.exists() or folder.is_symlink():
        raise BackendError("bad-input", f"{folder} is there already", "Give a folder that is not there yet.")
    progress("making", 0, 1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        _run(aside, family, size, seed, timeout_s)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    progress("making", 1, 1)


def _run(folder: Path, family: str, size: str, seed: int, timeout_s: float) -> None:
    asked = (family, str(folder.absolute()), "--size", size, "--seed", str(seed))
    try:
        status, output = run_module("make", *asked, timeout_s=timeout_s, with_errors=False)
    except TimeoutError:
        raise BackendError("deadline-exceeded", f"making it took over {timeout_s:g} s", "Make a tiny one.") from None
    if status:
        answered = told(output)
        code = str(answered.get("code", "internal"))
        message = answered.get("message", f"the process ended with status {status}")
        raise BackendError(code, f"making {family} failed: {message}", _HINTS.get(code, ""))

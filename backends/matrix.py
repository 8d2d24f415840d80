"""Which families really run on which backends here, found out by running each: a tiny model, loaded and asked.

    python -m ipfs_accel_node.backends.matrix BACKEND FAMILY [...]

As a process it prints a line of JSON for each family when it is done; `try_families` runs it apart,
because an engine may take its process with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from .child import end_with_parent, started_module
from .interface import BackendError, LoadOptions
from .making_shapes import MADE

FAMILIES: Final = tuple(MADE)
REAL, FAILED, NOT_HERE, UNTESTED = "REAL", "failed", "not on this machine", "untested"
TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.1


@dataclass(frozen=True)
class Cell:
    """What came of one family on one backend; `code` and `note` say why it is not REAL.

    `evidence` has what the signs of a loaded model found: devices, types of weights, memory moved, the canary.
    """

    family: str
    backend: str
    status: str
    code: str = ""
    note: str = ""
    task: str = ""
    implementation: str = ""
    device: str = ""
    precision: str = ""
    seconds: float = 0.0
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def try_families(
    backend: str, families: Sequence[str], done: Callable[[Cell], None], timeout_s: float = TIMEOUT_S
) -> None:
    """Calls `done` with each family's cell. One that takes longer than `timeout_s`, or its process, has failed."""
    waiting = list(families)
    while waiting:
        for cell in _run(backend, waiting, timeout_s):
            waiting.remove(cell.family)
            done(cell)


def _run(backend: str, families: Sequence[str], timeout_s: float) -> Iterator[Cell]:
    """The cells up to the first that ended the process, at least one."""
    with started_module("matrix", backend, *families, with_errors=False) as (child, output):
        yield from _watched(child, output.fileno(), backend, families, timeout_s)


def _watched(
    child: subprocess.Popen[bytes], output: int, backend: str, families: Sequence[str], timeout_s: float
) -> Iterator[Cell]:
    told, waiting, deadline = 0, list(families), time.monotonic() + timeout_s
    while waiting:
        ended = child.poll() is not None
        for line in _lines(output)[told:]:
            told += 1
            yield Cell(**json.loads(line))
            waiting.pop(0)
            deadline = time.monotonic() + timeout_s
        if waiting and ended:
            yield Cell(waiting[0], backend, FAILED, "worker-died", f"its process ended with status {child.returncode}")
            return
        if waiting and time.monotonic() > deadline:
            yield Cell(waiting[0], backend, FAILED, "deadline-exceeded", f"it took over {timeout_s:g} s")
            return
        time.sleep(_LOOK_S)


def _lines(output: int) -> list[bytes]:
    """Whole lines that were written so far."""
    return os.pread(output, os.fstat(output).st_size, 0).split(b"\n")[:-1]


def try_family(backend: str, family: str, scratch: Path) -> Cell:
    """Makes and loads a model in this process."""
    from . import registry
    from .make import make_model

    began = time.perf_counter()
    try:
        folder = make_model(scratch / family, family)
        model = registry.create(backend).load(folder, LoadOptions(scratch / "cache", key=family, threads=1))
        model.close()  # it answered when it was loaded, or it would not be
    except BackendError as error:
        return Cell(family, backend, FAILED, error.code, error.message)
    except Exception as error:
        return Cell(family, backend, FAILED, "internal", f"{type(error).__name__}: {error}"[:300])
    return Cell(
        family, backend, REAL, task=model.task, implementation=model.details["implementation"],
        device=model.details["device"],
        precision=model.details["precision"], seconds=round(time.perf_counter() - began, 2),
        evidence=model.details.get("evidence", {}),
    )  # fmt: skip


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    end_with_parent()
    with tempfile.TemporaryDirectory() as scratch:
        for family in sys.argv[2:]:
            print(json.dumps(try_family(sys.argv[1], family, Path(scratch)).as_dict()), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

"""How fast a loaded model really is here: timed runs, a line through them, kept on disk.

Two sizes of input are timed apart after a warm-up that is thrown away; the median of each gives
`seconds = fixed + units x per unit`. What is measured is kept by model, backend, precision, threads and versions.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from ...protocols.advert import Speed

log = logging.getLogger(__name__)

UNIT: Final = "bytes"
SIZES: Final = (32, 960)
WARM_UPS: Final = 3
LEAST_RUNS: Final = 5
MOST_RUNS: Final = 60
BUDGET_S: Final = 1.0


class Measurable(Protocol):
    def run(self, inputs: Any, params: dict[str, Any]) -> Any: ...

    def sample(self, units: int) -> Any: ...


def measure(model: Measurable, *, budget_s: float = BUDGET_S, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Times `model` at two sizes: at least `LEAST_RUNS` runs each, then until the budget is spent."""
    timings = [_times(model, model.sample(size), budget_s / len(SIZES), clock) for size in SIZES]
    return fit(SIZES[0], timings[0], SIZES[1], timings[1])


def fit(small: int, small_s: list[float], large: int, large_s: list[float]) -> Speed:
    """The line through the medians of two sizes; neither part is ever negative."""
    at_small, at_large = statistics.median(small_s), statistics.median(large_s)
    per_unit = max(0.0, (at_large - at_small) / (large - small))
    mean = statistics.fmean(small_s)
    return Speed(
        fixed_s=max(0.0, at_small - per_unit * small),
        per_unit_s=per_unit,
        unit=UNIT,
        spread=statistics.pstdev(small_s) / mean if mean else 0.0,
        count=len(small_s) + len(large_s),
    )


def _times(model: Measurable, inputs: Any, budget_s: float, clock: Callable[[], float]) -> list[float]:
    for _ in range(WARM_UPS):
        model.run(inputs, {})
    taken: list[float] = []
    end = clock() + budget_s
    while len(taken) < LEAST_RUNS or (clock() < end and len(taken) < MOST_RUNS):
        began = clock()
        model.run(inputs, {})
        taken.append(clock() - began)
    return taken


class Measurements:
    """The speeds measured on this machine, in one small JSON file. A damaged file is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._speeds: dict[str, dict[str, Any]] = self._read()

    @staticmethod
    def key(cid: str, backend: str, precision: str, threads: int, library: str) -> str:
        return "/".join((cid, backend, precision, str(threads), library))

    def get(self, key: str) -> tuple[Speed, float] | None:
        """The speed and the seconds that loading took, if they were ever measured."""
        kept = self._speeds.get(key)
        try:
            return (Speed(**kept["speed"]), float(kept["load_s"])) if kept else None
        except (KeyError, TypeError):
            return None

    def put(self, key: str, speed: Speed, load_s: float) -> None:
        fields = {name: getattr(speed, name) for name in ("fixed_s", "per_unit_s", "unit", "spread", "count")}
        self._speeds[key] = {"speed": fields, "load_s": load_s}
        aside = self._path.with_suffix(".tmp")
        aside.write_text(json.dumps(self._speeds, indent=1))
        os.replace(aside, self._path)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            kept = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("measuring anew: %s cannot be read (%s)", self._path, error)
            return {}
        return kept if isinstance(kept, dict) else {}

"""How fast a loaded model really is here: timed runs, a line through them, corrected by the jobs that follow. Pure.

Two sizes of input are run in turn after a warm-up that is thrown away, so that a machine that slows down meanwhile
slows both; the line through the medians gives `seconds = fixed + units x per unit`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Protocol

from ...protocols.advert import Speed

UNIT: Final = "bytes"
SIZES: Final = (64, 1024)
BUDGET_S: Final = 1.0
LEAST_ROUNDS: Final = 5
MOST_ROUNDS: Final = 200
WARM_UP_ROUNDS: Final = 3
#: A model so slow that it has used this many budgets is measured by the rounds it has, and says how many.
_PATIENCE: Final = 10.0
#: The standard deviation of a normal distribution, in median absolute deviations.
_SIGMA_PER_MAD: Final = 1.4826

_WEIGHT: Final = 0.2
_LOWEST, _HIGHEST = 1 / 8, 8.0
#: Added to both sides of a ratio, in seconds, so that noise on a job of microseconds is no factor of eight.
_NOISE_S: Final = 0.001


class Measurable(Protocol):
    def run(self, inputs: Any, params: dict[str, Any]) -> Any: ...

    def sample(self, units: int) -> Any: ...


def measure(
    model: Measurable,
    *,
    budget_s: float = BUDGET_S,
    sizes: Sequence[int] = SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Times whole runs of `model`, its preparing of the inputs included.

    At least `LEAST_ROUNDS` rounds and `budget_s` seconds after the warm-up; of a very slow model fewer rounds.
    Raises whatever the model raises.
    """
    inputs = {_units(sample, size): sample for size in sizes for sample in [model.sample(size)]}
    timings: dict[int, list[float]] = {units: [] for units in inputs}
    for _ in range(WARM_UP_ROUNDS):
        if _round(model, inputs, clock, {units: [] for units in inputs}) > budget_s:
            break
    spent, rounds = 0.0, 0
    while not _enough(rounds, spent, budget_s):
        spent += _round(model, inputs, clock, timings)
        rounds += 1
    return fit(timings)


def fit(timings: Mapping[int, Sequence[float]]) -> Speed:
    """The line through the medians of at least two sizes, by the median of its slopes (Theil and Sen, 1968).

    Neither part is negative. `spread` is the larger relative deviation of the sizes, by median absolute deviation.
    """
    medians = {units: statistics.median(taken) for units, taken in timings.items()}
    slopes = [
        (at_large - at_small) / (large - small)
        for (small, at_small), (large, at_large) in combinations(sorted(medians.items()), 2)
    ]
    per_unit = max(0.0, statistics.median(slopes))
    fixed = statistics.median([at - per_unit * units for units, at in medians.items()])
    if fixed < 0:
        fixed, per_unit = 0.0, statistics.median([at / units for units, at in medians.items()])
    return Speed(
        fixed_s=fixed,
        per_unit_s=per_unit,
        unit=UNIT,
        spread=max(_spread(taken) for taken in timings.values()),
        count=sum(len(taken) for taken in timings.values()),
    )


class LiveCorrection:
    """What jobs took over what was predicted: exponentially weighted, and never beyond a factor of eight."""

    def __init__(self) -> None:
        self.ratio = 1.0

    def observe(self, measured: Speed, units: float, took_s: float) -> None:
        ratio = (took_s + _NOISE_S) / (measured.seconds(units) + _NOISE_S)
        self.ratio += _WEIGHT * (min(max(ratio, _LOWEST), _HIGHEST) - self.ratio)

    def of(self, measured: Speed) -> Speed:
        """The measured speed as it is now."""
        return Speed(
            measured.fixed_s * self.ratio,
            measured.per_unit_s * self.ratio,
            measured.unit,
            measured.spread,
            measured.count,
        )


def _round(
    model: Measurable, inputs: Mapping[int, Any], clock: Callable[[], float], timings: dict[int, list[float]]
) -> float:
    """Runs each size once and notes what it took; the seconds of all of them."""
    for units, sample in inputs.items():
        began = clock()
        model.run(sample, {})
        timings[units].append(clock() - began)
    return sum(taken[-1] for taken in timings.values())


def _enough(rounds: int, spent: float, budget_s: float) -> bool:
    if rounds == 0:
        return False
    return (rounds >= LEAST_ROUNDS and spent >= budget_s) or rounds >= MOST_ROUNDS or spent >= _PATIENCE * budget_s


def _spread(taken: Sequence[float]) -> float:
    middle = statistics.median(taken)
    deviation = statistics.median([abs(each - middle) for each in taken])
    return _SIGMA_PER_MAD * deviation / middle if middle > 0 else 0.0


def _units(sample: Any, nominal: int) -> int:
    """The bytes of text in a sample; what was asked for where it is no text."""
    if isinstance(sample, str):
        return len(sample.encode())
    if isinstance(sample, list) and sample and all(isinstance(each, str) for each in sample):
        return sum(len(each.encode()) for each in sample)
    return nominal

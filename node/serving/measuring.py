"""How fast a loaded model really is here: timed runs, a line through them, corrected by the jobs that follow. Pure.

Two sizes of input, and two lengths of output where there is any, are run in turn after a warm-up that is thrown away,
so that a machine that slows down meanwhile slows all; the medians give
`seconds = fixed + units x per unit + outputs x per output`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Protocol

from ...protocols.advert import Speed
from ...protocols.work import Work

UNIT: Final = "bytes"
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


class Sample(Protocol):
    """`backends.interface.Sample`: inputs of `units`, asked to write `outputs` tokens."""

    @property
    def inputs(self) -> Any: ...

    @property
    def params(self) -> dict[str, Any]: ...

    @property
    def units(self) -> int: ...

    @property
    def outputs(self) -> int: ...


class Measurable(Protocol):
    def run(self, inputs: Any, params: dict[str, Any]) -> Any: ...

    def samples(self) -> Sequence[Sample]: ...


#: (units of input, outputs) → the seconds of each run.
Timings = Mapping[tuple[int, int], Sequence[float]]


def _nobody() -> bool:
    return False


def measure(
    model: Measurable,
    *,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
    is_awaited: Callable[[], bool] = _nobody,
) -> Speed:
    """Times whole runs of `model`, its preparing of the inputs included.

    At least `LEAST_ROUNDS` rounds and `budget_s` seconds after the warm-up; of a very slow model fewer rounds, and
    where `is_awaited` says that somebody waits, no more than fit the budget. Raises whatever the model raises.
    """
    samples = model.samples()
    timings: dict[tuple[int, int], list[float]] = {(each.units, each.outputs): [] for each in samples}
    for _ in range(WARM_UP_ROUNDS):
        if _round(model, samples, clock, {key: [] for key in timings}) > budget_s:
            break
    spent, rounds = 0.0, 0
    while not _enough(rounds, spent, budget_s * (1.0 if is_awaited() else _PATIENCE), budget_s):
        spent += _round(model, samples, clock, timings)
        rounds += 1
    return fit(timings)


def fit(timings: Timings) -> Speed:
    """The line through the medians of at least two sizes, by the median of its slopes (Theil and Sen, 1968).

    What an output takes comes first, from sizes that were run with more outputs and with fewer. No part is negative.
    `spread` is the larger relative deviation of the sizes, by median absolute deviation.
    """
    medians = {key: statistics.median(taken) for key, taken in timings.items()}
    per_output = _slope_of_outputs(medians)
    fewest = min(outputs for _, outputs in medians)
    line = {units: max(0.0, at - per_output * outs) for (units, outs), at in medians.items() if outs == fewest}
    fixed, per_unit = _line(line)
    return Speed(
        fixed_s=fixed,
        per_unit_s=per_unit,
        unit=UNIT,
        spread=max(_spread(taken) for taken in timings.values()),
        count=sum(len(taken) for taken in timings.values()),
        per_output_s=per_output,
    )


def _slope_of_outputs(medians: Mapping[tuple[int, int], float]) -> float:
    slopes = [
        (at_many - at_few) / (many - few)
        for (units, few), at_few in medians.items()
        for (same, many), at_many in medians.items()
        if units == same and few < many
    ]
    return max(0.0, statistics.median(slopes)) if slopes else 0.0


def _line(medians: Mapping[int, float]) -> tuple[float, float]:
    """The fixed part and the part a unit."""
    slopes = [
        (at_large - at_small) / (large - small)
        for (small, at_small), (large, at_large) in combinations(sorted(medians.items()), 2)
    ]
    per_unit = max(0.0, statistics.median(slopes)) if slopes else 0.0
    fixed = statistics.median([at - per_unit * units for units, at in medians.items()])
    if fixed < 0:
        return 0.0, statistics.median([at / units for units, at in medians.items()])
    return fixed, per_unit


class LiveCorrection:
    """What jobs took over what was predicted: exponentially weighted, and never beyond a factor of eight."""

    def __init__(self) -> None:
        self.ratio = 1.0

    def observe(self, measured: Speed, work: Work, took_s: float) -> None:
        ratio = (took_s + _NOISE_S) / (measured.seconds(work) + _NOISE_S)
        self.ratio += _WEIGHT * (min(max(ratio, _LOWEST), _HIGHEST) - self.ratio)

    def of(self, measured: Speed) -> Speed:
        """The measured speed as it is now."""
        return Speed(
            measured.fixed_s * self.ratio,
            measured.per_unit_s * self.ratio,
            measured.unit,
            measured.spread,
            measured.count,
            measured.per_output_s * self.ratio,
        )


def _round(
    model: Measurable,
    samples: Sequence[Sample],
    clock: Callable[[], float],
    timings: Mapping[tuple[int, int], list[float]],
) -> float:
    """Runs each sample once and notes what it took; the seconds of all of them."""
    spent = 0.0
    for sample in samples:
        began = clock()
        model.run(sample.inputs, sample.params)
        took = clock() - began
        timings[sample.units, sample.outputs].append(took)
        spent += took
    return spent


def _enough(rounds: int, spent: float, longest_s: float, budget_s: float) -> bool:
    if rounds == 0:
        return False
    return (rounds >= LEAST_ROUNDS and spent >= budget_s) or rounds >= MOST_ROUNDS or spent >= longest_s


def _spread(taken: Sequence[float]) -> float:
    middle = statistics.median(taken)
    deviation = statistics.median([abs(each - middle) for each in taken])
    return _SIGMA_PER_MAD * deviation / middle if middle > 0 else 0.0

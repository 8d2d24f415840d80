"""Which models stay in memory: the facts of each, and whom to unload when another must come in. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from ...protocols.advert import Speed
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.work import Work
from .measurements import Measurement
from .measuring import LiveCorrection

#: What a loaded model takes at least, in bytes: its tokenizer, its tables, the engine's own.
LEAST_BYTES: Final = 1 << 20
MOST_STRIKES: Final = 2
#: Predicted for a job before anything is known of its model, so that a queue of such jobs has a length at all.
UNMEASURED_S: Final = 0.1
_JOB_WEIGHT: Final = 0.3

#: A model that failed so will fail so again on this backend.
_FOR_GOOD: Final = frozenset(
    {
        ErrorCode.BAD_INPUT, ErrorCode.TOO_LARGE, ErrorCode.NOT_A_MODEL, ErrorCode.UNSAFE_MODEL,
        ErrorCode.UNSUPPORTED_TASK, ErrorCode.BACKEND_MISSING, ErrorCode.CONVERSION_FAILED,
        ErrorCode.UNSUPPORTED_PRECISION,
    }
)  # fmt: skip


class Place(Enum):
    """Where a model is, seen from one backend."""

    COLD = "cold"
    LOADING = "loading"
    WARM = "warm"
    UNLOADING = "unloading"


@dataclass(eq=False)
class Resident:
    """One model on one backend.

    Attributes:
        weights: what the folder says of them: `random`, or nothing.
        bytes: memory that it takes, estimated until it is loaded; 0 while it is cold.
        users: jobs and measurements that need it in memory now.
        jobs: admitted ones of this model, those in the queue included.
        measurement: what was measured, now or in an earlier run; `correction` by the jobs since.
        job_s: what a job takes, as far as that is known without a measurement.
        error: why it cannot be used here; None while it can.
        put_off_until: when the background looks at it again.
        activity: (state, done, total) of what happens to it now, such as ("converting", 0, 1).
    """

    cid: bytes
    place: Place = Place.COLD
    bytes: int = 0
    users: int = 0
    jobs: int = 0
    last_used: float = 0.0
    load_s: float = 0.0
    precision: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    measurement: Measurement | None = None
    correction: LiveCorrection = field(default_factory=LiveCorrection)
    job_s: float = UNMEASURED_S
    strikes: int = 0
    error: AccelError | None = None
    last_failure: AccelError | None = None
    activity: tuple[str, int, int] | None = None
    put_off_until: float = 0.0

    @property
    def is_warm(self) -> bool:
        return self.place is Place.WARM

    @property
    def speed(self) -> Speed | None:
        """The measured speed, corrected by the jobs that ran since."""
        return self.correction.of(self.measurement.speed) if self.measurement else None

    def observe(self, work: Work, run_s: float) -> None:
        """Learns from a job that ran."""
        self.job_s += _JOB_WEIGHT * (run_s - self.job_s)
        if self.measurement is not None:
            self.correction.observe(self.measurement.speed, work, run_s)

    def strike(self, failure: AccelError) -> None:
        """Loading or measuring failed. It is given up at once for a reason of its own, else the second time."""
        self.last_failure = failure
        self.strikes += 1
        if failure.code in _FOR_GOOD or self.strikes >= MOST_STRIKES:
            self.error = failure

    def forgive(self) -> None:
        self.strikes, self.error = 0, None

    def become_cold(self) -> None:
        self.place, self.bytes, self.activity = Place.COLD, 0, None


def fits(needed: int, limit: int, residents: Iterable[Resident]) -> bool:
    return needed + sum(each.bytes for each in residents) <= limit


def victims(needed: int, limit: int, residents: Iterable[Resident]) -> list[Resident] | None:
    """Who has to go so that `needed` bytes fit, the least recently used first; None when not even all of them do.

    Nothing that is in use or on its way in is ever among them; what is on its way out counts as gone.
    """
    staying = [each for each in residents if each.place is not Place.UNLOADING]
    excess = needed + sum(each.bytes for each in staying) - limit
    chosen: list[Resident] = []
    for each in sorted(staying, key=lambda each: each.last_used):
        if excess <= 0:
            break
        if each.is_warm and not each.users:
            chosen.append(each)
            excess -= each.bytes
    return chosen if excess <= 0 else None

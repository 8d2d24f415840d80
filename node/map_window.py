"""Many inputs, a bounded number of jobs at once: which may begin, and whose result is next. No input or output.

window = Window(concurrency, ordered=True)
while window.has_room: index = window.begin()      send the next input
window.end(Outcome(index, value))                  in any order
window.next()                                      the outcome whose turn it is, or None
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ..protocols.errors import AccelError, ErrorCode, JobError
from .client_requests import OnProgress, tell

OnError = Literal["raise", "return"]

MAX_CONCURRENCY: Final = 512
_MOST_BY_DEFAULT: Final = 64
#: One computes while the next one is on its way.
_JOBS_A_BACKEND: Final = 2
#: Results that may wait for a slow one before them, for each job at once.
_LOOKAHEAD: Final = 4
#: What the arguments of a submission are called, so that no parameter can be.
RESERVED: Final = frozenset({"self", "model", "task", "inputs", "timeout", "on", "job_id", "on_progress"})


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its value and the report of who computed it, or its error."""

    index: int
    value: Any = None
    report: dict[str, Any] = field(default_factory=dict)
    error: AccelError | None = None


class InputError(JobError):
    """One of many jobs ended without a result.

    Attributes:
        index: the place of its input, counted from 0.
    """

    def __init__(self, index: int, error: AccelError) -> None:
        super().__init__(error.code, f"input {index}: {error.message}", error.hint)
        self.index = index


class Window:
    """At most `concurrency` jobs are open, and at most four times as many inputs are begun and not yet given back."""

    def __init__(self, concurrency: int, *, ordered: bool = True) -> None:
        self.open = 0
        self._concurrency = concurrency
        self._ordered = ordered
        self._begun = 0
        self._given = 0
        self._ready: dict[int, Outcome] = {}

    @property
    def has_room(self) -> bool:
        return self.open < self._concurrency and self._begun - self._given < _LOOKAHEAD * self._concurrency

    @property
    def has_next(self) -> bool:
        return self._turn() in self._ready

    def begin(self) -> int:
        """The index of the input that begins."""
        self.open += 1
        self._begun += 1
        return self._begun - 1

    def end(self, outcome: Outcome) -> None:
        self.open -= 1
        self._ready[outcome.index] = outcome

    def next(self) -> Outcome | None:
        outcome = self._ready.pop(self._turn(), None)
        if outcome is not None:
            self._given += 1
        return outcome

    def _turn(self) -> int:
        return self._given if self._ordered else next(iter(self._ready), -1)


class Delivery:
    """Turns outcomes into what the caller of `map` gets, and tells how far it is."""

    def __init__(self, inputs: Any, *, ordered: bool, on_error: OnError, on_progress: OnProgress | None) -> None:
        if on_error not in ("raise", "return"):
            raise AccelError(ErrorCode.BAD_INPUT, f'on_error is "raise" or "return", not {on_error!r}')
        if isinstance(inputs, str | bytes):  # whose letters would be a job each
            raise AccelError(ErrorCode.BAD_INPUT, "what is mapped is many inputs, not one text", "Give a list: [text]")
        self._total = len(inputs) if isinstance(inputs, Sized) else 0
        self._ordered = ordered
        self._on_error = on_error
        self._on_progress = on_progress
        self._done = 0
        self._failed = 0

    def give(self, outcome: Outcome) -> Any:
        """The value, or the pair of index and value when the order is free. Raises InputError."""
        error = None if outcome.error is None else InputError(outcome.index, outcome.error)
        self._count(failed=error is not None)
        if error is not None and self._on_error == "raise":
            raise error
        value = outcome.value if error is None else error
        return value if self._ordered else (outcome.index, value)

    def _count(self, *, failed: bool) -> None:
        self._done += 1
        self._failed += failed
        if self._on_progress is not None:
            note = f"{self._failed} failed" if self._failed else ""
            if not tell(self._on_progress, "running", self._done, self._total, note):
                self._on_progress = None


def concerns_one_input(error: AccelError) -> bool:
    """False for what would befall every other input as well, such as a node that does not run."""
    return isinstance(error, JobError) or error.code in (ErrorCode.BAD_INPUT, ErrorCode.TOO_LARGE)


def checked_concurrency(given: int | None) -> int | None:
    """Raises AccelError bad-input."""
    if given is None or (type(given) is int and 1 <= given <= MAX_CONCURRENCY):
        return given
    raise AccelError(ErrorCode.BAD_INPUT, f"the jobs at once are a number from 1 to {MAX_CONCURRENCY}, not {given!r}")


def checked_params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises AccelError bad-input for a parameter that has the name of an argument."""
    if taken := sorted(RESERVED & set(params)):
        raise AccelError(ErrorCode.BAD_INPUT, f"no parameter is called {', '.join(taken)}: that is an argument")
    return params


def usual_concurrency(info: Mapping[str, Any]) -> int:
    """Enough for every backend that runs the model, by what `model info` says."""
    return min(_MOST_BY_DEFAULT, _JOBS_A_BACKEND * max(1, len(info["nodes"])))


def own_task(info: Mapping[str, Any], model: str) -> str:
    """The task that `model info` says. Raises AccelError unsupported-task."""
    if not info["task"]:
        why = info.get("why_not") or "See `model info` on the node that has it."
        raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"{model} is no model that can be run", why)
    return str(info["task"])

"""The contract that every backend keeps. An in-process library: it knows nothing of nodes, peers or jobs.

backend = registry.create("openvino")
model = backend.load(folder, LoadOptions(cache=…))
output = model.run(["a cat"], {})
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

#: (state, done, total), such as ("converting", 0, 1).
OnProgress = Callable[[str, int, int], None]


def no_progress(state: str, done: int, total: int) -> None:
    """For callers that do not watch."""


def never_cancelled() -> bool:
    return False


#: (offset of the first token, token ids, the text that they add), as soon as it is certain.
Emit = Callable[[int, list[int], str], None]


def no_emit(offset: int, token_ids: list[int], text: str) -> None:
    """For callers that wait for the whole output."""


class BackendError(Exception):
    """Loading or computing failed in a way that has a name.

    Attributes:
        code: one of unsupported-task, unsupported-precision, not-a-model, unsafe-model, bad-input, too-large,
            out-of-memory, conversion-failed, backend-missing, backend-disagrees, cancelled.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} [{code}]" + (f" {hint}" if hint else ""))
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class DeviceInfo:
    """What a backend computes on, and the tasks it runs, said only after it computed something there.

    `memory_bytes` is the device's; `default_precision` is what runs where nothing is asked for.
    """

    backend: str
    device: str
    memory_bytes: int
    library: str
    precisions: tuple[str, ...]
    tasks: tuple[str, ...]
    default_precision: str = "f32"


@dataclass(frozen=True)
class LoadOptions:
    """How to load.

    Attributes:
        cache: where converted forms are kept.
        key: names the folder's content, so that a converted form is found again.
        precision: one that the device names, or `auto` for the rule of `precision.py`.
        threads: to compute with.
    """

    cache: Path
    key: str
    precision: str = "auto"
    threads: int = 1
    progress: OnProgress = no_progress


@dataclass
class Output:
    """A result and what it took: `timings` in seconds (preprocess_s, compute_s, postprocess_s), `counts` of things."""

    value: Any
    timings: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prefix:
    """Output that an earlier attempt at the same job has given out: its token ids, and how many characters of text."""

    token_ids: tuple[int, ...] = ()
    characters: int = 0


@dataclass(frozen=True)
class RunContext:
    """What a run heeds and tells while it computes. Output goes on after `prefix`, whose tokens are never emitted."""

    cancelled: Callable[[], bool] = never_cancelled
    emit: Emit = no_emit
    prefix: Prefix = Prefix()


@dataclass(frozen=True)
class Sample:
    """Inputs and parameters to measure with: `units` of input (bytes of text), `outputs` tokens to be written."""

    inputs: Any
    params: dict[str, Any]
    units: int
    outputs: int = 0


class LoadedModel(Protocol):
    """A model in memory. `run` may be called from one thread at a time."""

    task: str
    precision: str
    memory_bytes: int
    #: implementation, library versions, device, and how the folder was understood.
    details: dict[str, Any]

    def run(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Output:
        """Raises BackendError bad-input for inputs or params that do not fit, cancelled when told to stop."""
        ...

    def samples(self) -> list[Sample]:
        """What to measure with: at least two sizes of input, and two lengths of output where there is any."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class LooksAhead(Protocol):
    """A loaded model that can do a part of a job while another thread runs another job of it."""

    def look_ahead(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Any:
        """What `run` takes in the place of these inputs, with the same parameters. Raises BackendError."""
        ...


class Backend(Protocol):
    """A way to compute."""

    name: str

    def probe(self) -> DeviceInfo:
        """Computes something, checks the answer, and says on what. Raises BackendError backend-missing."""
        ...

    def load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        """Raises BackendError."""
        ...

"""What the families whose parts are run one by one have in common: their timing, their samples, their end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..interface import BackendError, LoadedModel, Output, RunContext, Sample
from ..loading import ModelFacts
from .stages import Arrays, Stage, Stages


class StagedModel(ABC):
    """The family's half of a loaded model; an engine brings `stages`.

    A family prepares inputs as arrays, computes with the stages, and makes of it a result shaped as the pipelines of
    transformers shape it.
    """

    task: str

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        self._stages = dict(stages)
        self.precision = precision
        self.memory_bytes = memory
        self.details = {**details, "family": facts.family.name}

    def run(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Output:
        """Raises BackendError bad-input, too-large, cancelled."""
        began = time.perf_counter()
        prepared = self.prepare(inputs, params)
        ready = time.perf_counter()
        computed = self.compute(prepared, context)
        done = time.perf_counter()
        value, counts = self.result(prepared, computed)
        timings = {
            "preprocess_s": ready - began,
            "compute_s": done - ready,
            "postprocess_s": time.perf_counter() - done,
        }
        return Output(value, timings, counts)

    @abstractmethod
    def prepare(self, inputs: Any, params: dict[str, Any]) -> Any:
        """Inputs and parameters, checked, as arrays. Raises BackendError bad-input, too-large."""

    @abstractmethod
    def compute(self, prepared: Any, context: RunContext) -> Any: ...

    @abstractmethod
    def result(self, prepared: Any, computed: Any) -> tuple[Any, dict[str, int]]:
        """The value, and how many of what it was made from."""

    @abstractmethod
    def samples(self) -> list[Sample]: ...

    def close(self) -> None:
        self._stages = dict.fromkeys(self._stages, unloaded)

    def stage(self, name: str, context: RunContext, **given: Any) -> list[Any]:
        """Runs one part. Raises BackendError cancelled."""
        if context.cancelled():
            raise BackendError("cancelled", "the job was cancelled")
        return self._stages[name](given)


def open_staged(
    facts: ModelFacts, stages: dict[str, Stage], details: dict[str, Any], precision: str, memory: int
) -> LoadedModel:
    """The model of its family. Raises BackendError not-a-model for a folder that lacks what the family needs."""
    model: Callable[..., LoadedModel] = import_module(f".{facts.family.name}", __package__).MODEL
    try:
        return model(facts, stages, details, precision, memory)
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError("not-a-model", f"its configuration is incomplete: {error!r}"[:300]) from None


def unloaded(_: Arrays) -> Any:
    raise BackendError("worker-died", "the model was unloaded")

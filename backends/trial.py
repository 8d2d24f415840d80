"""A model answers once before it counts as loaded: what fails there would fail every job, and says so at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .interface import BackendError, LoadedModel

Result = TypeVar("Result")


def tried(open_model: Callable[[], LoadedModel]) -> LoadedModel:
    """The model, once it has answered the smallest of its own samples.

    Raises:
        BackendError: not-a-model for one that does not compute, out-of-memory, and what opening it raises.
    """
    model = _coded(open_model)
    try:
        _coded(lambda: _answer(model))
    except BackendError:
        model.close()
        raise
    return model


def _answer(model: LoadedModel) -> None:
    sample = model.samples()[0]
    try:
        model.run(sample.inputs, sample.params)
    except BackendError as error:
        code = error.code if error.code == "out-of-memory" else "not-a-model"
        raise BackendError(code, f"it does not answer an ordinary input: {error.message}", error.hint) from None


def _coded(do: Callable[[], Result]) -> Result:
    """Engines raise whatever they please over settings that make no sense."""
    try:
        return do()
    except BackendError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise BackendError("out-of-memory", f"the machine lacks the memory for it: {error}"[:300]) from None
        raise BackendError("not-a-model", f"it cannot compute: {type(error).__name__}: {error}"[:300]) from None

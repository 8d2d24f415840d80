"""A model answers once before it counts as loaded: what fails there would fail every job, and says so at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .interface import BackendError, LoadedModel, Sample

Result = TypeVar("Result")


def answer(model: LoadedModel, sample: Sample) -> None:
    """Has it answer one of its own samples.

    Raises:
        BackendError: not-a-model for one that does not, and then it is closed; out-of-memory.
    """
    try:
        coded(lambda: model.run(sample.inputs, sample.params))
    except BackendError as error:
        model.close()
        code = error.code if error.code == "out-of-memory" else "not-a-model"
        raise BackendError(code, f"it does not answer an ordinary input: {error.message}", error.hint) from None


def coded(do: Callable[[], Result]) -> Result:
    """What `do` gives. Engines raise whatever they please over settings that make no sense.

    Raises:
        BackendError: as `do` raises it; not-a-model or out-of-memory for anything else.
    """
    try:
        return do()
    except BackendError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise BackendError("out-of-memory", f"the machine lacks the memory for it: {error}"[:300]) from None
        raise BackendError("not-a-model", f"it cannot compute: {type(error).__name__}: {error}"[:300]) from None

"""The parts of a model as an engine runs them, such as an image tower: named arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
#: Inputs by name → outputs in the stage's own order, float32 in C order.
Stage = Callable[[Arrays], list[NDArray[Any]]]
Stages = Mapping[str, Stage]


class Remembering:
    """A stage that knows what it was given before, such as a language model with its cache.

    Each output that is written has one of its own: `fresh` gives it, with nothing in it yet.
    """

    def __init__(self, fresh: Callable[[], Stage]) -> None:
        self.fresh = fresh

    def __call__(self, given: Arrays) -> list[NDArray[Any]]:
        """One step of an output that has no other."""
        return self.fresh()(given)

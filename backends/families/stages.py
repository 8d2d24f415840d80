"""The parts of a model as an engine runs them, such as an image tower: named arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
#: Inputs by name → outputs in the stage's own order, float32 in C order.
Stage = Callable[[Arrays], list[NDArray[Any]]]
#: Called from one thread at a time.
Stages = Mapping[str, Stage]

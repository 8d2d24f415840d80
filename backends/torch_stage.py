"""One stage of a model as a torch module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TorchStage:
    """`module(**inputs)` gives a tensor or a tuple of them; `example` are inputs to trace it with, by name."""

    module: Any
    example: dict[str, Any]
    #: Input → its axes that may have any length.
    free: dict[str, tuple[int, ...]]
    #: Whether it keeps what it was given: then `module.fresh()` gives its steps for one output, and its forward takes
    #: `past`, a tuple of arrays [1, heads, n, width], last, and gives them with the new ones, after its own output.
    remembers: bool = False

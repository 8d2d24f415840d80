"""How much a job asks for, counted without the model: an entry node may have neither it nor its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: More is counted as this much, so that it fits every message.
_MOST: Final = float(1 << 53)


@dataclass(frozen=True, slots=True)
class Work:
    """`units` of input, such as bytes of text, and `outputs`: the tokens that are thought to be written."""

    units: float = 0.0
    outputs: float = 0.0

    @classmethod
    def of(cls, counted: Mapping[str, Any]) -> Work:
        """What its submitter counted, `{"bytes": n, "outputs": n}`; never negative, 0 where it did not."""
        return cls(_amount(counted.get("bytes")), _amount(counted.get("outputs")))

    def as_dict(self) -> dict[str, int]:
        return {"bytes": round(self.units), **({"outputs": round(self.outputs)} if self.outputs else {})}


def _amount(value: Any) -> float:
    sound = type(value) in (int, float) and math.isfinite(value)
    return min(max(0.0, float(value)), _MOST) if sound else 0.0

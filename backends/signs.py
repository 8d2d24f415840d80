"""What ran, by several independent signs, and an error where they disagree with what was to run.

Pure: an engine finds the facts, this judges them. Signs that an engine does not give are left out and not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .canary import Canary
from .interface import BackendError

#: What engines call an element's type → what it is called here.
_TYPES: Final = {
    "float32": "f32", "fp32": "f32", "bfloat16": "bf16", "float16": "f16", "fp16": "f16",
    "int8": "i8", "uint8": "u8", "int4": "i4", "uint4": "u4",
}  # fmt: skip
#: Precision → the types of which more than half of the weights' elements must be.
_STORED: Final = {
    "f32": {"f32"}, "bf16": {"bf16"}, "fp16": {"f16"}, "int8": {"i8", "u8"}, "int4": {"i8", "u8", "i4", "u4"},
}  # fmt: skip
_FOUR_BITS: Final = {"i4", "u4"}
#: The rest of a model in int4 has 8 bits: its tables, and what is no language model.
_LEAST_FOUR_BITS: Final = 0.1
#: Part of the weights, without the largest table, that must have moved. A table may be mapped and read row by row, and
#: bf16 halves what is read from a file in f32.
_LEAST_MOVED: Final = 0.25


@dataclass(frozen=True)
class Found:
    """What an engine found out about a loaded model.

    Attributes:
        devices: where its parameters are, or what the engine says that it executes on; empty where it does not say.
        weights: type → elements of that type among the weights.
        products: type → how many matrix products compute in it; empty where the engine does not say.
        weight_bytes: bytes of the weights as they are stored, and of the largest of them.
        moved_bytes: memory that loading moved; None where the system does not say.
    """

    devices: tuple[str, ...]
    weights: Mapping[str, int]
    weight_bytes: int
    largest_bytes: int
    moved_bytes: int | None
    canary: Canary
    products: Mapping[str, int] = field(default_factory=dict)


def type_name(name: str) -> str:
    """The short name of an element's type, such as `f32` for `torch.float32` and `FP32`."""
    short = name.lower().removeprefix("torch.")
    return _TYPES.get(short, short)


def prove(found: Found, *, device: str, stored: str, computes_in: str) -> dict[str, Any]:
    """The evidence, for whoever reads a result.

    Args:
        stored: the precision that says what type the weights have.
        computes_in: the type that matrix products must have.

    Raises:
        BackendError: backend-disagrees, with every sign that does.
    """
    complaints = [
        *_device(found, device),
        *_weights(found, stored),
        *_products(found, computes_in),
        *_memory(found),
        *found.canary.complaints,
    ]
    if complaints:
        raise BackendError(
            "backend-disagrees",
            f"what was loaded is not what was to run: {'; '.join(complaints)}"[:500],
            "Try another backend or precision, and please report it.",
        )
    return {
        "devices": list(found.devices),
        "weights": dict(found.weights),
        "products": dict(found.products),
        "weight_bytes": found.weight_bytes,
        "moved_bytes": found.moved_bytes,
        "canary": {"parts": found.canary.parts, "seconds": round(found.canary.seconds, 4)},
    }


def _device(found: Found, device: str) -> list[str]:
    others = [each for each in found.devices if each.lower() != device.lower()]
    return [f"it is on {', '.join(others)} and not on {device} alone"] if others else []


def _weights(found: Found, stored: str) -> list[str]:
    total = sum(found.weights.values())
    right = sum(count for kind, count in found.weights.items() if kind in _STORED[stored])
    four = sum(count for kind, count in found.weights.items() if kind in _FOUR_BITS)
    if 2 * right <= total or (stored == "int4" and four < _LEAST_FOUR_BITS * total):
        return [f"its weights are {_told(found.weights)}, and {stored} was to be"]
    return []


def _products(found: Found, computes_in: str) -> list[str]:
    total, right = sum(found.products.values()), found.products.get(computes_in, 0)
    return [f"its products compute in {_told(found.products)} and not in {computes_in}"] if 2 * right < total else []


def _memory(found: Found) -> list[str]:
    least = _LEAST_MOVED * (found.weight_bytes - found.largest_bytes)
    if found.moved_bytes is None or found.moved_bytes >= least:
        return []
    return [f"loading moved {found.moved_bytes} bytes of memory, and its weights have {found.weight_bytes}"]


def _told(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    shares = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{kind} {100 * count // total} %" for kind, count in shares) if total else "none"

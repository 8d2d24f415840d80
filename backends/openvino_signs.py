"""What a converted model holds, and what OpenVINO compiled of it, by its own graphs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .signs import type_name

#: Layers that multiply matrices, in OpenVINO's execution graph.
_PRODUCTS: Final = frozenset({"FullyConnected", "MatMul", "Convolution"})
#: Constants of these types are shapes and places.
_NO_WEIGHTS: Final = frozenset({"i32", "i64", "boolean"})


@dataclass
class Weights:
    """type → elements; their bytes, and those of the largest."""

    elements: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    largest_bytes: int = 0


def weights_of(files: Iterable[Path]) -> Weights:
    """The constants of converted models. The weights themselves are not read."""
    import openvino as ov

    core, found = ov.Core(), Weights()
    for file in files:
        for node in core.read_model(file).get_ops():
            if node.get_type_name() == "Constant":
                _count(found, node)
    return found


def products_of(compiled: Iterable[Any]) -> Counter[str]:
    """type → layers that compute in it. OpenVINO names what computes a layer like `brgemm_avx512_bf16`."""
    kinds: Counter[str] = Counter()
    for each in compiled:
        for node in each.get_runtime_model().get_ops():
            told = node.get_rt_info()
            if "layerType" in told and _text(told["layerType"]) in _PRODUCTS:
                kinds[type_name(_text(told["primitiveType"]).rpartition("_")[2])] += 1
    return kinds


def devices_of(compiled: Iterable[Any]) -> tuple[str, ...]:
    """EXECUTION_DEVICES of all of them."""
    return tuple(sorted({str(name) for each in compiled for name in each.get_property("EXECUTION_DEVICES")}))


def _count(found: Weights, node: Any) -> None:
    kind = node.get_element_type()
    name = type_name(str(kind.get_type_name()))
    if name in _NO_WEIGHTS:
        return
    elements = math.prod(node.get_output_shape(0))
    size = elements * int(kind.bitwidth) // 8
    found.elements[name] += elements
    found.bytes += size
    found.largest_bytes = max(found.largest_bytes, size)


def _text(value: Any) -> str:
    """A value of the run-time information, which may come wrapped."""
    return str(getattr(value, "value", value))

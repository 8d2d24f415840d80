"""Hands torch's linear layers to oneDNN where that is faster: on AMD, torch's own f32 product is half as fast."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

_TRIES: Final = 8
_TOKENS: Final = 32
_WORTH_IT: Final = 0.9
#: Modules that compute with the weights of their layers themselves, by the names transformers has for them.
_READ_WEIGHTS: Final = frozenset({"VideoMAESelfAttention"})


def prefer_onednn(model: Any, tokens: int = _TOKENS) -> int:
    """Replaces each plain `Linear` of a shape that is faster so for that many tokens; the number replaced.

    Each shape is tried once: which is faster depends on the processor, on the shape, and on how many tokens there are.
    """
    import torch

    if not hasattr(torch.ops, "mkldnn") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    tried: dict[tuple[int, int], bool] = {}

    def is_faster(layer: Any) -> bool:
        shape = layer.in_features, layer.out_features
        if shape not in tried:
            tried[shape] = _is_faster(layer, tokens)
        return tried[shape]

    return _replace(model, is_faster)


def _replace(module: Any, is_faster: Callable[[Any], bool]) -> int:
    import torch

    if type(module).__name__ in _READ_WEIGHTS:
        return 0
    replaced = 0
    for name, child in list(module.named_children()):
        if type(child) is not torch.nn.Linear:
            replaced += _replace(child, is_faster)
        elif is_faster(child):
            setattr(module, name, _packed(child))
            replaced += 1
    return replaced


def _packed(linear: Any) -> Any:
    import torch

    class PackedLinear(torch.nn.Module):
        """A linear layer whose weight oneDNN has laid out for itself."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer(
                "packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TOKENS), persistent=False
            )
            self.bias = linear.bias

        @property
        def weight(self) -> Any:
            """As it was, for a module that asks for it; making it takes a while."""
            packed: Any = self.packed
            return packed.to_dense()

        def forward(self, states: Any) -> Any:
            return torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, "none", [], "")

    return PackedLinear()


def _is_faster(linear: Any, tokens: int) -> bool:
    import torch

    states = torch.ones(1, tokens, linear.in_features)
    try:
        packed = _packed(linear)
        with torch.inference_mode():
            if not torch.allclose(linear(states), packed(states), atol=1e-4, rtol=1e-4):
                return False
            return best_s(packed, states) < _WORTH_IT * best_s(linear, states)
    except (RuntimeError, AttributeError) as error:
        log.info("oneDNN is not used: %s", error)
        return False


def best_s(layer: Any, states: Any) -> float:
    """Seconds of the fastest of a few tries."""
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        layer(states)
        best = min(best, time.perf_counter() - began)
    return best

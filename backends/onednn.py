"""Hands torch's linear layers to oneDNN where that is faster: on AMD, torch's own f32 product is half as fast."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

log = logging.getLogger(__name__)

_TRIES: Final = 8
_TOKENS: Final = 32
_WORTH_IT: Final = 0.9


def prefer_onednn(model: Any) -> int:
    """Replaces every plain `Linear` of `model` if a trial on its largest one is faster; the number replaced."""
    import torch

    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
    if not layers or not hasattr(torch.ops, "mkldnn") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    largest = max(layers, key=lambda layer: layer.weight.numel())
    try:
        if not _is_faster(largest):
            return 0
    except (RuntimeError, AttributeError) as error:
        log.info("oneDNN is not used: %s", error)
        return 0
    return _replace(model)


def _replace(module: Any) -> int:
    import torch

    replaced = 0
    for name, child in list(module.named_children()):
        if type(child) is torch.nn.Linear:
            setattr(module, name, _packed(child))
            replaced += 1
        else:
            replaced += _replace(child)
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

        def forward(self, states: Any) -> Any:
            return torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, "none", [], "")

    return PackedLinear()


def _is_faster(linear: Any) -> bool:
    import torch

    states = torch.ones(1, _TOKENS, linear.in_features)
    packed = _packed(linear)
    with torch.inference_mode():
        if not torch.allclose(linear(states), packed(states), atol=1e-4, rtol=1e-4):
            return False
        return _best_s(packed, states) < _WORTH_IT * _best_s(linear, states)


def _best_s(layer: Any, states: Any) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        began = time.perf_counter()
        layer(states)
        best = min(best, time.perf_counter() - began)
    return best

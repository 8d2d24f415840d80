"""Weight-only INT8 for torch: a byte for each weight, a scale for each row; what goes through stays as it is.

For few rows at once, as when a text is written, torch's own product of bf16 with INT8 is used where it was tried and
was right and faster; else the bytes become floats for the length of one product.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from .onednn import best_s

log = logging.getLogger(__name__)

#: Rows up to which torch's own product may be faster.
_FEW_ROWS: Final = 16
#: Tables with fewer rows, such as places and types, stay as they are.
_LEAST_ROWS: Final = 2048
#: How far torch's own product may be from the plain one, in parts of the largest number: it rounds to bf16.
_CLOSE: Final = 0.02

#: (weights int8 [out, in], scales f32 [out])
Packed = tuple[Any, Any]


def quantize(model: Any) -> int:
    """Replaces linear layers and large tables in place; how many. A table that is shared stays shared."""
    replaced = _Packing().replace(model)
    for each in model.parameters():
        # A view of the file: it alone would keep all of the file's weights in memory.
        each.data = each.data.clone()
    return replaced


def packed(weight: Any) -> Packed:
    """Symmetric, a scale a row: each number is off by half a step of 1/127 of its row's largest, at most."""
    import torch

    scale = weight.detach().float().abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight.detach().float() / scale[:, None]).round().to(torch.int8), scale


class _Packing:
    def __init__(self) -> None:
        # The weights are kept as well: an address means something only as long as what is there lives.
        self._done: dict[int, tuple[Any, Packed]] = {}
        self._tried: dict[tuple[int, int], bool] = {}

    def replace(self, module: Any) -> int:
        import torch
        from transformers.pytorch_utils import Conv1D

        replaced = 0
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                layer = self._linear(self._packed(child.weight), child.bias)
            elif type(child) is Conv1D:
                layer = self._linear(packed(child.weight.T), child.bias)
            elif type(child) is torch.nn.Embedding and child.num_embeddings >= _LEAST_ROWS:
                layer = _table(self._packed(child.weight))
            else:
                replaced += self.replace(child)
                continue
            setattr(module, name, layer)
            replaced += 1
        return replaced

    def _packed(self, weight: Any) -> Packed:
        if id(weight) not in self._done:
            self._done[id(weight)] = weight, packed(weight)
        return self._done[id(weight)][1]

    def _linear(self, weight: Packed, bias: Any) -> Any:
        layer = linear(weight, bias)
        shape = tuple(weight[0].shape)
        if shape not in self._tried:
            self._tried[shape] = _has_own_product(layer, shape[1])
        layer.own_product = self._tried[shape]
        return layer


def linear(weight: Packed, bias: Any) -> Any:
    """A module in the place of `torch.nn.Linear`."""
    import torch

    class Int8Linear(torch.nn.Module):
        codes: Any
        scale: Any
        ones: Any

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", weight[0], persistent=False)
            self.register_buffer("scale", weight[1], persistent=False)
            self.register_buffer("ones", torch.ones(len(weight[1]), dtype=torch.bfloat16), persistent=False)
            self.bias = bias
            self.own_product = False

        @property
        def weight(self) -> Any:
            """In floats, for a module that computes with it itself."""
            return self.codes.to(self.scale.dtype) * self.scale[:, None]

        def forward(self, states: Any) -> Any:
            rows = states.reshape(-1, states.shape[-1])
            if self.own_product and len(rows) <= _FEW_ROWS:
                product = torch._weight_int8pack_mm(rows.bfloat16(), self.codes, self.ones).to(states.dtype)
            else:
                product = torch.nn.functional.linear(rows, self.codes.to(states.dtype))
            product = product * self.scale.to(states.dtype)
            product = product if self.bias is None else product + self.bias
            return product.reshape(*states.shape[:-1], -1)

    return Int8Linear()


def _table(weight: Packed) -> Any:
    """A module in the place of `torch.nn.Embedding`."""
    import torch

    class Int8Embedding(torch.nn.Module):
        codes: Any
        scale: Any

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("codes", weight[0], persistent=False)
            self.register_buffer("scale", weight[1], persistent=False)

        @property
        def weight(self) -> Any:
            return self.codes.to(self.scale.dtype) * self.scale[:, None]

        def forward(self, ids: Any) -> Any:
            return self.codes[ids].to(self.scale.dtype) * self.scale[ids][..., None]

    return Int8Embedding()


def _has_own_product(layer: Any, width: int) -> bool:
    """Whether torch's own product is right for this shape, and faster for one row."""
    import torch

    states = torch.linspace(-1, 1, width)[None]
    try:
        with torch.inference_mode():
            plain, plain_s = layer(states), best_s(layer, states)
            layer.own_product = True
            own, own_s = layer(states), best_s(layer, states)
        return bool((own - plain).abs().max() <= _CLOSE * plain.abs().max()) and own_s < plain_s
    except (RuntimeError, AttributeError) as error:
        log.info("torch's own INT8 product is not used: %s", error)
        return False
    finally:
        layer.own_product = False

"""What a loaded model of torch holds, and where."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .canary import Canary
from .signs import Found, type_name


def found_in(model: Any, moved_bytes: int | None, canary: Canary) -> Found:
    """Its parameters and buffers: weights that were laid out anew or made smaller are buffers."""
    import torch

    tensors = [
        each
        for each in (*model.parameters(), *model.buffers())  # one that is shared comes once
        if each.is_floating_point() or each.dtype in (torch.int8, torch.uint8)
    ]
    elements: Counter[str] = Counter()
    for each in tensors:
        if each.dim() == 2:  # matrices and tables: kernels and what is added to a result stay as they are in INT8
            elements[type_name(str(each.dtype))] += each.numel()
    sizes = [each.numel() * each.element_size() for each in tensors]
    devices = tuple(sorted({str(each.device) for each in tensors}))
    return Found(devices, elements, sum(sizes), max(sizes), moved_bytes, canary)

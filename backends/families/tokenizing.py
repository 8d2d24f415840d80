"""The folder's own `tokenizer.json`, read by the `tokenizers` library alone, so that no engine is needed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError
from ..loading import inside

Ids = NDArray[np.int64]


def open_tokenizer(folder: Path, vocabulary: int) -> Any:
    """A `tokenizers.Tokenizer` that neither pads nor truncates.

    Raises:
        BackendError: not-a-model when it cannot be read, or knows more tokens than the `vocabulary` of the weights.
    """
    from tokenizers import Tokenizer

    path = inside(folder, "tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise BackendError("not-a-model", f"its tokenizer.json cannot be read: {error}"[:300]) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > vocabulary:
        raise BackendError("not-a-model", "its tokenizer knows more tokens than its weights")
    return tokenizer


def padded(ids: list[list[int]], pad_id: int) -> tuple[Ids, Ids]:
    """Input ids and attention mask, each [batch, tokens of the longest]."""
    width = max(1, *map(len, ids)) if len(ids) > 1 else max(1, len(ids[0]))
    input_ids = np.full((len(ids), width), pad_id, np.int64)
    mask = np.zeros((len(ids), width), np.int64)
    for row, each in enumerate(ids):
        input_ids[row, : len(each)] = each
        mask[row, : len(each)] = 1
    return input_ids, mask

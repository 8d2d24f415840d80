"""Tokenizers of single bytes, for models with random weights: they read every text, and their ids mean nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, product
from typing import Any


def letters() -> list[str]:
    """The 256 pieces that stand for bytes."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def filled(pieces: Sequence[str], count: int) -> list[str]:
    """With pieces of two letters, which no text is read as, until there are `count`: all that a model may write."""
    pairs = (first + second for first, second in product(letters(), repeat=2))
    return [*pieces, *islice(pairs, max(0, count - len(pieces)))]


def byte_tokenizer(pieces: Sequence[str], specials: Sequence[str]) -> Any:
    """A `tokenizers.Tokenizer` whose ids are the places of `pieces`, the `specials` among them."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in specials])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer

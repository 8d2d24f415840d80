"""What text models are measured with: one ordinary English sentence, over and over."""

from __future__ import annotations

from typing import Final

#: Bytes of text, a short and a long one.
SIZES: Final = (64, 1024)
_SENTENCE: Final = "The quick brown fox jumps over the lazy dog near a quiet river. "


def text_of(size: int) -> str:
    """A text of `size` bytes."""
    return (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]

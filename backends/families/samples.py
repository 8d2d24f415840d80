"""What models are measured with: an ordinary English sentence over and over, and noise that is always the same."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Bytes of text, a short and a long one.
SIZES: Final = (64, 1024)
_SENTENCE: Final = "The quick brown fox jumps over the lazy dog near a quiet river. "
_HEIGHT: Final = 240
_WIDTH: Final = 320


def text_of(size: int) -> str:
    """A text of `size` bytes."""
    return (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]


def frames_of_noise(count: int) -> NDArray[np.uint8]:
    """uint8 [count, 240, 320, 3]: blocks of colour, which compress about as a photograph does."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, _HEIGHT // 8, _WIDTH // 8, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def encoded_image() -> bytes:
    """A JPEG of 320 x 240 pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frames_of_noise(1)[0]).save(file, "JPEG", quality=90)
    return file.getvalue()


def encoded_sound(seconds: float, rate: int) -> bytes:
    """A WAV of quiet noise, 16 bits a sample."""
    import soundfile

    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()

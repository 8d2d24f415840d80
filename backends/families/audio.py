"""Sound as jobs bring it, made mono float32 at the rate that a model was trained with.

A sound is an encoded file (bytes: WAV, FLAC, OGG or MP3), or `{"array": samples, "sampling_rate": hertz}` with
samples [n] or [channels, n], or a bare float array [n] that is at the model's rate already.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError
from ..settings import whole

MAX_SECONDS: Final = 1800.0
_MIN_RATE: Final = 1000
_MAX_RATE: Final = 384_000
_MAX_CHANNELS: Final = 32
#: What integers of each width are divided by.
_FULL_SCALE: Final = {"int8": 128.0, "int16": 32768.0, "int32": 2147483648.0}

Samples = NDArray[np.float32]


def open_audio(value: Any, rate: int, longest_s: float = MAX_SECONDS) -> Samples:
    """Mono samples at `rate` hertz, at least one. Raises BackendError bad-input, too-large."""
    if isinstance(value, (bytes, bytearray)):
        samples, given_rate = _decoded(bytes(value), longest_s)
    elif isinstance(value, dict):
        samples, given_rate = _of_fields(value)
    else:
        samples, given_rate = _mono(value), rate
    if not samples.size:
        raise BackendError("bad-input", "the sound has no samples", "Give at least one.")
    _check_length(samples.size / given_rate, longest_s)
    if not np.isfinite(samples).all():
        raise BackendError("bad-input", "the sound has samples that are no numbers", "Check how it was made.")
    return samples if given_rate == rate else _resampled(samples, given_rate, rate)


def sampling_rate(said: dict[str, Any], otherwise: int) -> int:
    """Hertz, as preprocessor_config.json says. Raises BackendError not-a-model."""
    return whole(said, "sampling_rate", otherwise, 4000, 192_000)


def sounds_of(inputs: Any, rate: int, most: int, longest_s: float = MAX_SECONDS) -> list[Samples]:
    """One sound, or a list of at most `most`, opened. Raises BackendError bad-input, too-large."""
    values = inputs if isinstance(inputs, list) and not _is_numbers(inputs) else [inputs]
    if not values or len(values) > most:
        raise BackendError("too-large" if values else "bad-input", f"{len(values)} sounds; 1 to {most} at once", "")
    return [open_audio(value, rate, longest_s) for value in values]


def _is_numbers(values: list[Any]) -> bool:
    return bool(values) and type(values[0]) in (int, float)


def _decoded(data: bytes, longest_s: float) -> tuple[Samples, int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_rate(file.samplerate, file.channels)
            _check_length(file.frames / file.samplerate, longest_s)
            samples = file.read(int(longest_s * file.samplerate) + 1, dtype="float32", always_2d=True)
            return _averaged(samples.T), int(file.samplerate)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(
            "bad-input", f"the sound cannot be decoded: {error}"[:200], "Formats: WAV, FLAC, OGG and MP3."
        ) from None


def _of_fields(value: dict[str, Any]) -> tuple[Samples, int]:
    array, rate = value.get("array", value.get("raw")), value.get("sampling_rate")
    if array is None or type(rate) is not int:
        raise BackendError(
            "bad-input",
            "a sound given as a map has an array and a sampling_rate",
            'Like {"array": …, "sampling_rate": 16000}.',
        )
    _check_rate(rate, 1)
    return _mono(array), rate


def _mono(value: Any) -> Samples:
    """Whole numbers are taken as a file's samples, and brought to -1 … 1."""
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.zeros(0, object)
    scale = _FULL_SCALE.get(array.dtype.name, 1.0) if isinstance(value, np.ndarray) else 1.0
    if array.dtype.kind not in "fi" or array.ndim not in (1, 2) or (array.ndim == 2 and len(array) > _MAX_CHANNELS):
        raise BackendError(
            "bad-input",
            f"{array.dtype} {list(array.shape)} is no sound",
            "Give a file's bytes, or an array of float32 [samples] or [channels, samples].",
        )
    return _averaged(np.atleast_2d(array).astype(np.float32) / np.float32(scale))


def _averaged(channels: NDArray[np.float32]) -> Samples:
    return np.ascontiguousarray(channels[0] if len(channels) == 1 else channels.mean(axis=0), dtype=np.float32)


def _check_rate(rate: int, channels: int) -> None:
    if not _MIN_RATE <= rate <= _MAX_RATE or not 1 <= channels <= _MAX_CHANNELS:
        raise BackendError("bad-input", f"a sound of {rate} Hz with {channels} channels is not read", "")


def _check_length(seconds: float, longest_s: float) -> None:
    if seconds > longest_s:
        raise BackendError("too-large", f"the sound has {seconds:.1f} s", f"At most {longest_s:.0f} s at once.")


def _resampled(samples: Samples, given_rate: int, rate: int) -> Samples:
    import soxr

    return np.ascontiguousarray(soxr.resample(samples, given_rate, rate, quality="HQ"), dtype=np.float32)

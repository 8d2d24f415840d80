"""Log-mel spectrograms with numpy alone, as `transformers.audio_utils` defines them (float64 inside, Hann window).

Kept apart from any engine, so that an OpenVINO process needs neither torch nor transformers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@lru_cache(maxsize=8)
def mel_filters(bins: int, mels: int, low: float, high: float, rate: int, *, slaney: bool) -> Floats:
    """Triangles [bins, mels]; on Slaney's scale with his norm, else on HTK's scale without one."""
    edges = _to_hertz(np.linspace(_to_mel(low, slaney), _to_mel(high, slaney), mels + 2), slaney)
    frequencies = np.linspace(0, rate // 2, bins)
    slopes = edges[None, :] - frequencies[:, None]
    widths = np.diff(edges)
    filters = np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return filters * (2.0 / (edges[2:] - edges[:-2])) if slaney else filters


def mel_power(samples: NDArray[np.float32], size: int, hop: int, filters: Floats, floor: float) -> Floats:
    """Power in each mel band [mels, frames], at least `floor`; frames are centred, the ends mirrored."""
    padded = np.pad(samples.astype(np.float64), size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    window = np.hanning(size + 1)[:-1]
    # As transformers does: the spectrum is kept in complex64.
    spectrum = np.fft.rfft(frames * window).astype(np.complex64)
    power = np.abs(spectrum, dtype=np.float64) ** 2.0
    return np.asarray(np.maximum(floor, filters.T @ power.T))


def _to_mel(hertz: float, slaney: bool) -> float:
    if not slaney:
        return float(2595.0 * np.log10(1.0 + hertz / 700.0))
    return 3.0 * hertz / 200.0 if hertz < 1000.0 else float(15.0 + np.log(hertz / 1000.0) * (27.0 / np.log(6.4)))


def _to_hertz(mels: Floats, slaney: bool) -> Floats:
    if not slaney:
        return np.asarray(700.0 * (np.power(10, mels / 2595.0) - 1.0))
    return np.where(mels < 15.0, 200.0 * mels / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0)))

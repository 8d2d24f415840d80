"""CLAP: a sound and labels in, how well each label fits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext, Sample
from ..loading import ModelFacts, read_json
from .audio import Samples, sounds_of
from .samples import encoded_sound
from .spectrogram import mel_filters, mel_power
from .staged import StagedModel
from .stages import Stages
from .tokenizing import Ids
from .zero_shot import LabelTexts, read_labels, scored

TEMPLATE: Final = "This is a sound of {}."
_MOST_SOUNDS: Final = 64
_LONGEST_S: Final = 600.0
_FLOOR: Final = 1e-10


@dataclass(frozen=True)
class _Extractor:
    """`preprocessor_config.json`: windows, bands, and the seconds that the model hears."""

    rate: int
    size: int
    hop: int
    mels: int
    low: float
    high: float
    longest: int
    padding: str

    def features(self, sound: Samples) -> NDArray[np.float32]:
        """Log-mel [1, frames, mels] in decibels. What is longer than the model hears gives its middle.

        transformers takes a part at random; the middle makes one sound give one answer.
        """
        filters = mel_filters(self.size // 2 + 1, self.mels, self.low, self.high, self.rate, slaney=True)
        power = mel_power(self._fitted(sound), self.size, self.hop, filters, _FLOOR)
        return (10.0 * np.log10(power)).T[None].astype(np.float32)

    def _fitted(self, sound: Samples) -> Samples:
        if len(sound) >= self.longest:
            begin = (len(sound) - self.longest) // 2
            return sound[begin : begin + self.longest]
        times = self.longest // len(sound)
        if self.padding == "repeat":
            return np.tile(sound, times + 1)[: self.longest]
        repeated = np.tile(sound, times) if self.padding == "repeatpad" else sound
        return np.pad(repeated, (0, self.longest - len(repeated)))


@dataclass(frozen=True)
class _Prepared:
    labels: list[str]
    texts: dict[str, Ids]
    features: list[NDArray[np.float32]]
    alone: bool


class ClapModel(StagedModel):
    """Stages: `audio` (input_features → unit vectors [n, d], the scale) and `text` (→ unit vectors [labels, d])."""

    task = "zero-shot-audio-classification"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        if facts.part("audio_config").get("enable_fusion"):
            raise BackendError("unsupported-task", "CLAP models that fuse several parts of a sound are not served yet")
        self._extractor = _read_extractor(facts)
        self._texts = LabelTexts(facts.folder, {"model_type": "clap_text_model", **facts.part("text_config")})
        self.details["sampling_rate"] = self._extractor.rate

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a sound or a list of them; `candidate_labels`, `hypothesis_template` as in transformers."""
        labels, sentences = read_labels(params, TEMPLATE)
        sounds = sounds_of(inputs, self._extractor.rate, _MOST_SOUNDS, _LONGEST_S)
        features = [self._extractor.features(sound) for sound in sounds]
        return _Prepared(labels, self._texts.encode(sentences), features, not isinstance(inputs, list))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[NDArray[np.float32]]:
        """Logits [labels] of each sound."""
        (labels,) = self.stage("text", context, **prepared.texts)
        logits: list[NDArray[np.float32]] = []
        for features in prepared.features:
            sounds, scale = self.stage("audio", context, input_features=features[None])
            logits += list(float(np.ravel(scale)[0]) * sounds @ labels.T)
        return logits

    def result(self, prepared: _Prepared, computed: list[NDArray[np.float32]]) -> tuple[Any, dict[str, int]]:
        """`[{"score", "label"}, …]` best first, for each sound of a list."""
        each = [scored(prepared.labels, logits) for logits in computed]
        return each[0] if prepared.alone else each, {"sounds": len(each), "texts": len(prepared.labels)}

    def samples(self) -> list[Sample]:
        labels = {"candidate_labels": ["rain", "a dog"]}
        one = encoded_sound(self._extractor.longest // self._extractor.rate, self._extractor.rate)
        return [Sample([one] * count, labels, len(one) * count) for count in (1, 3)]


def _read_extractor(facts: ModelFacts) -> _Extractor:
    said = read_json(facts.folder, "preprocessor_config.json")
    extractor = _Extractor(
        rate=int(said.get("sampling_rate", 48_000)),
        size=int(said.get("fft_window_size", 1024)),
        hop=int(said.get("hop_length", 480)),
        mels=int(said.get("feature_size", 64)),
        low=float(said.get("frequency_min", 0)),
        high=float(said.get("frequency_max", 14_000)),
        longest=int(said.get("max_length_s", 10)) * int(said.get("sampling_rate", 48_000)),
        padding=str(said.get("padding", "repeatpad")),
    )
    sound = (
        8000 <= extractor.rate <= 192_000
        and 64 <= extractor.size <= 16_384
        and 16 <= extractor.hop <= extractor.size
        and 8 <= extractor.mels <= 512
        and 0 <= extractor.low < extractor.high <= extractor.rate
        and extractor.size < extractor.longest <= 60 * extractor.rate
        and extractor.padding in ("repeat", "repeatpad", "pad")
    )
    if not sound:
        raise BackendError("not-a-model", "its preprocessor_config.json says what is not understood")
    return extractor


MODEL: Final = ClapModel

"""wav2vec2 with a CTC head: speech in, text out.

Sounds are read one at a time: with a model that has no attention mask, padding would change what is heard.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext, Sample
from ..loading import ModelFacts, inside, read_json
from .audio import Samples, sampling_rate, sounds_of
from .samples import encoded_sound
from .staged import StagedModel
from .stages import Stages

_MOST_SOUNDS: Final = 64
_LONGEST_S: Final = 120.0
_MEASURED_S: Final = (2, 8)


@dataclass(frozen=True)
class _Prepared:
    sounds: list[Samples]
    alone: bool


class Wav2Vec2Model(StagedModel):
    """Stage: `ctc` (input_values [1, samples] → logits [1, frames, vocabulary])."""

    task = "automatic-speech-recognition"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        said = read_json(facts.folder, "preprocessor_config.json")
        self._rate = sampling_rate(said, 16_000)
        self._normalizes = bool(said.get("do_normalize", True))
        self._letters = _Letters(facts)
        self._shortest = _receptive_field(facts.config)
        self.details["sampling_rate"] = self._rate

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a sound or a list of them."""
        if params:
            raise BackendError("bad-input", f"unknown parameters {', '.join(sorted(params))}", "There are none.")
        sounds = [self._fitted(sound) for sound in sounds_of(inputs, self._rate, _MOST_SOUNDS, _LONGEST_S)]
        return _Prepared(sounds, not isinstance(inputs, list))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[NDArray[np.int64]]:
        """The likeliest letter of each frame."""
        return [self.stage("ctc", context, input_values=sound[None])[0][0].argmax(axis=-1) for sound in prepared.sounds]

    def result(self, prepared: _Prepared, computed: list[NDArray[np.int64]]) -> tuple[Any, dict[str, int]]:
        """`{"text"}`, for each sound of a list."""
        each = [{"text": self._letters.read(frames)} for frames in computed]
        milliseconds = sum(len(sound) for sound in prepared.sounds) * 1000 // self._rate
        return each[0] if prepared.alone else each, {"sounds": len(each), "audio_ms": milliseconds}

    def samples(self) -> list[Sample]:
        sounds = [encoded_sound(seconds, self._rate) for seconds in _MEASURED_S]
        return [Sample(sound, {}, len(sound)) for sound in sounds]

    def _fitted(self, sound: Samples) -> Samples:
        if len(sound) < self._shortest:
            raise BackendError("bad-input", f"the sound has {len(sound)} samples", f"At least {self._shortest}.")
        if not self._normalizes:
            return sound
        return np.asarray((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7), np.float32)


class _Letters:
    """`vocab.json`: what the frames spell (Graves et al. 2006, best path decoding), as transformers joins it."""

    def __init__(self, facts: ModelFacts) -> None:
        vocabulary = read_json(facts.folder, "vocab.json")
        if not all(type(number) is int for number in vocabulary.values()):
            raise BackendError("not-a-model", "its vocab.json is no list of letters")
        said = read_json(facts.folder, "tokenizer_config.json") if _has(facts, "tokenizer_config.json") else {}
        self._letters = {number: letter for letter, number in vocabulary.items()}
        self._blank = vocabulary.get(_token(said.get("pad_token", "<pad>")), facts.config.get("pad_token_id"))
        self._gap = _token(said.get("word_delimiter_token", "|"))
        self._replacement = _token(said.get("replace_word_delimiter_char", " "))
        self._lower = said.get("do_lower_case") is True

    def read(self, frames: NDArray[np.int64]) -> str:
        numbers = [number for number, _ in itertools.groupby(frames.tolist()) if number != self._blank]
        letters = (self._letters.get(number, "") for number in numbers)
        text = "".join(self._replacement if letter == self._gap else letter for letter in letters).strip()
        return text.lower() if self._lower else text


def _token(said: Any) -> str:
    return str(said.get("content", "")) if isinstance(said, dict) else str(said)


def _has(facts: ModelFacts, name: str) -> bool:
    return inside(facts.folder, name).exists()


def _receptive_field(config: dict[str, Any]) -> int:
    """Samples that make one frame: with fewer the convolutions have nothing to go over."""
    field, step = 1, 1
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        field += (int(kernel) - 1) * step
        step *= int(stride)
    return field


MODEL: Final = Wav2Vec2Model

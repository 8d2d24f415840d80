"""Whisper: speech in, text out. What is longer than half a minute is read in parts, cut where it is quiet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext, Sample
from ..loading import ModelFacts, read_json
from ..settings import token, tokens, whole
from .audio import Samples, sampling_rate, sounds_of
from .samples import encoded_sound
from .seq2seq import Seq2SeqModel, check_params, ends_of, read_limit
from .spectrogram import mel_filters, mel_power
from .stages import Stages
from .tokenizing import open_tokenizer

_MOST_SOUNDS: Final = 64
_MEASURED: Final = ((2, 4), (8, 4), (2, 16), (8, 16))
#: Where a long sound is cut: in the last sixth of a part, where so much of it is quietest.
_SEARCHED: Final = 6
_QUIET_S: Final = 0.2


@dataclass(frozen=True)
class _Prepared:
    sounds: list[Samples]
    limit: int
    language: str | None
    task: str
    alone: bool


class WhisperModel(Seq2SeqModel):
    """Stages: `read` (input_features [1, mel bands, frames]) and `decode`."""

    task = "automatic-speech-recognition"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self._features = _Features(read_json(facts.folder, "preprocessor_config.json"))
        said = read_json(facts.folder, "generation_config.json")
        size = int(facts.config["vocab_size"])
        self._tokenizer = open_tokenizer(facts.folder, size)
        self._start = token(said, "decoder_start_token_id", facts.config.get("decoder_start_token_id"), size)
        self._ends = ends_of(said, facts.config)
        self._never, self._never_first = (
            np.array(tokens(said.get(name), name, size), np.int64)
            for name in ("suppress_tokens", "begin_suppress_tokens")
        )
        self._languages = _named(said, "lang_to_id", size) if said.get("is_multilingual") else {}
        self._tasks = _named(said, "task_to_id", size)
        self._no_times = token(said, "no_timestamps_token_id", None, size)
        most = whole(facts.config, "max_target_positions", 448, 8, 1 << 16)
        self._longest = min(whole(said, "max_length", most, 1, 1 << 24), most)
        self.details["sampling_rate"] = self._features.rate

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a sound or a list; `language` like "en", else it is heard; `task` transcribe or translate."""
        check_params(params, "language", "task", "max_new_tokens")
        language, task = params.get("language"), params.get("task", "transcribe")
        if language is not None and f"<|{language}|>" not in self._languages:
            known = ", ".join(sorted(name.strip("<|>") for name in self._languages)) or "none: it knows one only"
            raise BackendError("bad-input", f"the model knows no language {language!r}", f"Languages: {known[:300]}.")
        if task != "transcribe" and (task not in self._tasks or not self._languages):
            raise BackendError("bad-input", f"the model does no {task!r}", "It transcribes.")
        sounds = sounds_of(inputs, self._features.rate, _MOST_SOUNDS)
        limit = read_limit(params, self._longest, self._longest)
        return _Prepared(sounds, limit, language, task, not isinstance(inputs, list))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[list[list[int]]]:
        """The tokens of each part of each sound."""
        return [
            [self._heard(part, prepared, context) for part in self._features.parts(sound)] for sound in prepared.sounds
        ]

    def result(self, prepared: _Prepared, computed: list[list[list[int]]]) -> tuple[Any, dict[str, int]]:
        """`{"text"}`, for each sound of a list."""
        decode = self._tokenizer.decode
        each = [
            {"text": " ".join(filter(None, (decode(ids, skip_special_tokens=True).strip() for ids in parts)))}
            for parts in computed
        ]
        counts = {
            "sounds": len(each),
            "audio_ms": sum(map(len, prepared.sounds)) * 1000 // self._features.rate,
            "completion_tokens": sum(len(ids) + 1 for parts in computed for ids in parts),
        }
        return each[0] if prepared.alone else each, counts

    def samples(self) -> list[Sample]:
        made = {seconds: encoded_sound(seconds, self._features.rate) for seconds, _ in _MEASURED}
        return [Sample(made[seconds], {"max_new_tokens": new}, len(made[seconds]), new) for seconds, new in _MEASURED]

    def _heard(self, part: Samples, prepared: _Prepared, context: RunContext) -> list[int]:
        read = self.stage("read", context, input_features=self._features.of(part))[0]
        start = self._opening(read, prepared, context)
        limit = min(prepared.limit, self._longest - len(start))
        return self.write(read, start, self._ends, limit, context, self._adjust)[0]

    def _opening(self, read: NDArray[Any], prepared: _Prepared, context: RunContext) -> list[int]:
        """The tokens that say what is to be written."""
        if not self._languages:
            return [self._start, self._no_times]
        spoken = self._languages.get(f"<|{prepared.language}|>")
        language = self._language_of(read, context) if spoken is None else spoken
        return [self._start, language, self._tasks[prepared.task], self._no_times]

    def _language_of(self, read: NDArray[Any], context: RunContext) -> int:
        """The likeliest of the languages to come first."""
        past = np.zeros((*read.shape[:4], 0, read.shape[5]), np.float32)
        tokens = np.array([[self._start]], np.int64)
        logits = self.stage("decode", context, tokens=tokens, past=past, read=read)[0][0]
        known = np.array(sorted(self._languages.values()))
        return int(known[logits[known].argmax()])

    def _adjust(self, logits: NDArray[np.float32], number: int) -> None:
        logits[self._never] = -np.inf
        if number == 0:
            logits[self._never_first] = -np.inf


class _Features:
    """`preprocessor_config.json`: log-mel spectra of half a minute, as transformers makes them."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.rate = sampling_rate(said, 16_000)
        self._size, self._hop = whole(said, "n_fft", 400, 64, 1 << 14), whole(said, "hop_length", 160, 16, 1 << 14)
        self._length = whole(said, "chunk_length", 30, 1, 120) * self.rate
        bands = whole(said, "feature_size", 80, 8, 512)
        self._filters = mel_filters(1 + self._size // 2, bands, 0.0, 8000.0, self.rate, slaney=True)

    def parts(self, sound: Samples) -> list[Samples]:
        """Not longer than the model hears at once."""
        parts = []
        while len(sound) > self._length:
            cut = self._quietest(sound)
            parts.append(sound[:cut])
            sound = sound[cut:]
        return [*parts, sound]

    def of(self, part: Samples) -> NDArray[np.float32]:
        """float32 [1, mel bands, frames]"""
        whole = np.zeros(self._length, np.float32)
        whole[: len(part)] = part
        spectrum = np.log10(mel_power(whole, self._size, self._hop, self._filters, 1e-10))[:, :-1]
        clipped = (np.maximum(spectrum, spectrum.max() - 8.0) + 4.0) / 4.0
        return np.asarray(clipped, np.float32)[None]

    def _quietest(self, sound: Samples) -> int:
        first, window = self._length - self._length // _SEARCHED, int(_QUIET_S * self.rate)
        loudness = np.convolve(np.square(sound[first : self._length], dtype=np.float64), np.ones(window), "valid")
        return int(first + loudness.argmin() + window // 2)


def _named(said: dict[str, Any], name: str, vocabulary: int) -> dict[str, int]:
    return {key: token(said[name], key, None, vocabulary) for key in said.get(name) or {}}


MODEL: Final = WhisperModel

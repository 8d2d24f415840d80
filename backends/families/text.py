"""Text generation: a text or messages in, new text out, token by token.

The tokenizer, the chat template, what ends the output and what is given out stand here, shared by the engines; an
engine brings `generate`, which knows token ids alone.

    inputs ─► prompt ids (+ ids of an earlier attempt) ─► generate ─► take(id) ─► TextStream ─► emit(offset, ids, text)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tokenizers.decoders import DecodeStream

from ..interface import BackendError, Output, Prefix, RunContext, Sample
from ..loading import ModelFacts, read_json
from .chat import ChatTemplate, read_messages
from .samples import SIZES, text_of
from .text_params import TextParams, read_params
from .text_stream import TextStream
from .tokenizing import open_tokenizer

#: Takes one new token; false when that was the last one.
Take = Callable[[int], bool]
#: (prompt ids, params, how many tokens at most, take): computes tokens until `take` is false or there are so many.
Generate = Callable[[list[int], TextParams, int, Take], None]

_MEASURED_TOKENS: Final = 16
#: Bytes of UTF-8 that a token stands for at least, in what is refused before it is tokenized.
_MOST_BYTES_A_TOKEN: Final = 64
#: Characters that are given out at once at most: each piece has to fit a frame.
_LONGEST_PIECE: Final = 8192


@dataclass(frozen=True)
class Prompt:
    """What is read before anything is written: its token ids, how to go on from them, and how many of what it has."""

    ids: list[int]
    generate: Generate
    counts: dict[str, int] = field(default_factory=dict)
    #: Seconds that went into it before its turn came, while another job was computed.
    ahead_s: float = 0.0


class TextModel:
    """The family's half of a loaded language model."""

    task = "text-generation"

    def __init__(
        self, facts: ModelFacts, generate: Generate, details: dict[str, Any], precision: str, memory: int
    ) -> None:
        config = self.language_config(facts)
        self._vocabulary = int(config["vocab_size"])
        self._tokenizer = open_tokenizer(facts.folder, self._vocabulary)
        self._chat = ChatTemplate(facts.folder)
        self._context = context_length(config)
        self._eos, self._penalty = _generation_config(facts, config)
        self._generate = generate
        self.precision = precision
        self.memory_bytes = memory
        self.details = {
            **details,
            "family": facts.family.name,
            "context_tokens": self._context,
            "chat_template": self._chat.exists,
        }

    def run(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Output:
        """`inputs` a text to go on from, or messages `[{"role", "content"}, …]` to answer.

        The value is `{"generated_text", "token_ids", "finish_reason": "stop" | "length", "prompt_tokens", "seed"}`:
        the new text alone, without the prompt.

        Raises:
            BackendError: bad-input, too-large, unsafe-model (its chat template), cancelled.
        """
        began = time.perf_counter()
        asked = read_params(params)
        self._check(context.prefix)
        prompt = self.read(inputs, asked, context)
        output = _Output(self, asked, min(asked.max_new_tokens, self._context - len(prompt.ids)), context)
        prepared = time.perf_counter()
        if not output.ended:
            prompt.generate(
                [*prompt.ids, *context.prefix.token_ids], self._completed(asked), output.tokens_left, output.take
            )
        computed = time.perf_counter()
        value = {**output.finish(), "prompt_tokens": len(prompt.ids), "seed": asked.seed if asked.samples else None}
        timings = {
            "preprocess_s": prepared - began,
            "first_token_s": (output.first_at or computed) - prepared,
            "compute_s": computed - prepared,
            "postprocess_s": time.perf_counter() - computed,
            **({"ahead_s": prompt.ahead_s} if prompt.ahead_s else {}),
        }
        new = len(output.stream.token_ids) - len(context.prefix.token_ids)
        return Output(value, timings, {"prompt_tokens": len(prompt.ids), "output_tokens": new, **prompt.counts})

    def samples(self) -> list[Sample]:
        """Two sizes of prompt for reading, and a longer output for writing."""
        one, many = ({"max_new_tokens": count, "ignore_eos": True} for count in (1, 1 + _MEASURED_TOKENS))
        # A token stands for one byte at least, so these fit whatever the tokenizer is.
        long = max(2, min(SIZES[1], self._context // 2 - _MEASURED_TOKENS))
        short = max(1, min(SIZES[0], long // 4))
        return [
            Sample(text_of(short), one, short, 1),
            Sample(text_of(long), one, long, 1),
            Sample(text_of(short), many, short, 1 + _MEASURED_TOKENS),
        ]

    def close(self) -> None:
        self._generate = closed
        self._chat.close()

    # --- what a model that reads more than text has otherwise

    def language_config(self, facts: ModelFacts) -> dict[str, Any]:
        """The configuration of what writes."""
        return facts.config

    def read(self, inputs: Any, asked: TextParams, _context: RunContext) -> Prompt:
        """Raises BackendError bad-input, too-large, unsafe-model, cancelled."""
        return Prompt(self._prompt(inputs, asked), self._generate)

    # --- for one output

    def stream(self, stops: tuple[str, ...]) -> TextStream:
        decoding = DecodeStream(skip_special_tokens=True)
        return TextStream(lambda token_id: decoding.step(self._tokenizer, token_id), stops)

    def decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))

    def is_end(self, token_id: int) -> bool:
        return token_id in self._eos

    # --- inside

    def _check(self, prefix: Prefix) -> None:
        """It is the caller's word, and an engine would look up whatever id it is given."""
        if len(prefix.token_ids) > self._context:
            raise self._too_long(f"goes on from {len(prefix.token_ids)} tokens")
        if not all(0 <= each < self._vocabulary for each in prefix.token_ids):
            raise BackendError("bad-input", "the output to go on from has token ids that this model does not know")

    def _prompt(self, inputs: Any, asked: TextParams) -> list[int]:
        """Token ids. A template writes its special tokens itself; a plain text gets those the tokenizer adds."""
        if isinstance(inputs, str) and not (asked.chat and self._chat.exists):
            ids = self._encode(inputs, special=True)
        else:
            messages = read_messages([{"role": "user", "content": inputs}] if isinstance(inputs, str) else inputs)
            ids = self._encode(self._chat.render(messages), special=False)
        return self._checked(ids)

    def _checked(self, ids: list[int]) -> list[int]:
        if len(ids) >= self._context:
            raise self._too_long(f"has {len(ids)} tokens")
        if not ids:
            raise BackendError("bad-input", "the prompt is empty", "Give it at least one character.")
        return ids

    def _encode(self, text: str, *, special: bool) -> list[int]:
        if len(text.encode(errors="replace")) > self._context * _MOST_BYTES_A_TOKEN:
            raise self._too_long(f"has {len(text)} characters")
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def _too_long(self, what: str) -> BackendError:
        return BackendError(
            "too-large", f"the prompt {what}, and the model reads {self._context} tokens", "Shorten it."
        )

    def _completed(self, asked: TextParams) -> TextParams:
        """With what the folder says where the caller said nothing."""
        return asked if asked.repetition_penalty is not None else replace(asked, repetition_penalty=self._penalty)


class _Output:
    """One output on its way: takes tokens, gives them out, knows when it has ended."""

    def __init__(self, model: TextModel, asked: TextParams, limit: int, context: RunContext) -> None:
        self._model = model
        self._asked = asked
        self._limit = limit
        self._context = context
        self._at_end = False
        self.first_at: float | None = None
        self.stream = model.stream(asked.stop)
        for token_id in context.prefix.token_ids:
            self._add(token_id)
        self.stream.skip(context.prefix.characters)

    @property
    def tokens_left(self) -> int:
        return max(0, self._limit - len(self.stream.token_ids))

    @property
    def ended(self) -> bool:
        return self._at_end or self.stream.stopped or not self.tokens_left

    def take(self, token_id: int) -> bool:
        """Raises BackendError cancelled."""
        if self._context.cancelled():
            raise BackendError("cancelled", "the job was cancelled")
        self.first_at = self.first_at or time.perf_counter()
        offset = len(self.stream.token_ids)
        self._add(token_id)
        self._give_out(offset, [token_id], self.stream.take())
        return not self.ended

    def finish(self) -> dict[str, Any]:
        ids = self.stream.token_ids
        if rest := self.stream.finish(self._model.decode(ids)):
            self._give_out(len(ids), [], rest)
        stopped = self._at_end or self.stream.stopped
        return {
            "generated_text": self.stream.text,
            "token_ids": ids,
            "finish_reason": "stop" if stopped else "length",
        }

    def _give_out(self, offset: int, token_ids: list[int], text: str) -> None:
        self._context.emit(offset, token_ids, text[:_LONGEST_PIECE])
        for begin in range(_LONGEST_PIECE, len(text), _LONGEST_PIECE):
            self._context.emit(offset + len(token_ids), [], text[begin : begin + _LONGEST_PIECE])

    def _add(self, token_id: int) -> None:
        self.stream.add(token_id)
        self._at_end = self._at_end or (self._model.is_end(token_id) and not self._asked.ignore_eos)


def context_length(config: dict[str, Any]) -> int:
    """Tokens that the model was made for, prompt and output together. Raises BackendError not-a-model."""
    for name in ("max_position_embeddings", "n_positions", "n_ctx"):
        value = config.get(name)
        if type(value) is int and 0 < value <= 1 << 24:
            return value
    raise BackendError("not-a-model", "its config.json says no max_position_embeddings")


def _generation_config(facts: ModelFacts, config: dict[str, Any]) -> tuple[frozenset[int], float]:
    """The ids that end an output, and the repetition penalty, as `generation_config.json` or `config.json` say."""
    path: Path = facts.folder / "generation_config.json"
    said = {**config, **(read_json(facts.folder, path.name) if path.exists() else {})}
    eos = said.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [eos]
    penalty = said.get("repetition_penalty")
    sound = isinstance(penalty, (int, float)) and 1e-3 <= penalty <= 100
    return frozenset(each for each in ids if type(each) is int), float(penalty or 1.0) if sound else 1.0


def closed(*_: Any) -> None:
    raise BackendError("worker-died", "the model was unloaded")

"""T5: a text in, a text out, such as a summary or a translation; the text says which, as in `summarize: …`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..interface import BackendError, RunContext, Sample
from ..loading import ModelFacts, inside, read_json
from ..settings import token
from .samples import SIZES, text_of
from .seq2seq import Seq2SeqModel, check_params, ends_of, read_limit
from .stages import Stages
from .tokenizing import open_tokenizer

_MOST_TEXTS: Final = 64
_MOST_TOKENS: Final = 4096
_DEFAULT_NEW: Final = 256
_MEASURED_NEW: Final = (4, 16)

Written = list[tuple[list[int], bool]]


@dataclass(frozen=True)
class _Prepared:
    texts: list[list[int]]
    limit: int
    alone: bool


class T5Model(Seq2SeqModel):
    """Stages: `read` (input_ids [1, n]) and `decode`."""

    task = "text2text-generation"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        config = facts.config
        has_own = inside(facts.folder, "generation_config.json").exists()
        said = read_json(facts.folder, "generation_config.json") if has_own else {}
        size = int(config["vocab_size"])
        self._tokenizer = open_tokenizer(facts.folder, size)
        self._start = token(said, "decoder_start_token_id", config.get("decoder_start_token_id", 0), size)
        self._ends = ends_of(said, config)
        self._prefixes = {
            name: str(each["prefix"])
            for name, each in (config.get("task_specific_params") or {}).items()
            if isinstance(each, dict) and "prefix" in each
        }

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a text or a list of them; `prefix` goes before each, or the name that config.json has for one."""
        check_params(params, "max_new_tokens", "prefix")
        texts = inputs if isinstance(inputs, list) else [inputs]
        if not texts or not all(isinstance(text, str) and text for text in texts):
            raise BackendError("bad-input", "the input is no text", "Give a text, or a list of texts.")
        if len(texts) > _MOST_TEXTS:
            raise BackendError("too-large", f"{len(texts)} texts; 1 to {_MOST_TEXTS} at once", "")
        prefix = params.get("prefix", "")
        if not isinstance(prefix, str):
            raise BackendError("bad-input", "prefix is a text", 'Like "summarize: ", or the name "summarization".')
        ids = [self._tokenizer.encode(self._prefixes.get(prefix, prefix) + text).ids for text in texts]
        if max(map(len, ids)) > _MOST_TOKENS:
            raise BackendError("too-large", f"a text of over {_MOST_TOKENS} tokens", "Give a part of it.")
        limit = read_limit(params, _DEFAULT_NEW, _MOST_TOKENS)
        return _Prepared(ids, limit, not isinstance(inputs, list))

    def compute(self, prepared: _Prepared, context: RunContext) -> Written:
        written: Written = []
        for ids in prepared.texts:
            read = self.stage("read", context, input_ids=_row(ids))[0]
            written.append(self.write(read, [self._start], self._ends, prepared.limit, context))
        return written

    def result(self, prepared: _Prepared, computed: Written) -> tuple[Any, dict[str, int]]:
        """`{"generated_text", "token_ids", "finish_reason"}`, for each text of a list."""
        each = [
            {
                "generated_text": self._tokenizer.decode(ids, skip_special_tokens=True),
                "token_ids": ids,
                "finish_reason": "stop" if ended else "length",
            }
            for ids, ended in computed
        ]
        counts = {
            "prompt_tokens": sum(map(len, prepared.texts)),
            "completion_tokens": sum(len(ids) + ended for ids, ended in computed),
        }
        return each[0] if prepared.alone else each, counts

    def samples(self) -> list[Sample]:
        return [Sample(text_of(size), {"max_new_tokens": new}, size, new) for size in SIZES for new in _MEASURED_NEW]


def _row(ids: list[int]) -> Any:
    import numpy as np

    return np.array([ids], np.int64)


MODEL: Final = T5Model

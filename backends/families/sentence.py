"""Sentence embeddings and BERT: texts in, one vector a text out, as the folder's own `modules.json` says.

Tokenizing and pooling are done here with the `tokenizers` library and numpy alone, so that every engine shares them
and an OpenVINO process needs neither torch nor transformers. The layout is sentence-transformers' own
(`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, Output, RunContext, Sample
from ..loading import ModelFacts, inside, read_json
from .samples import SIZES, text_of
from .tokenizing import Ids, open_tokenizer, padded

#: Padded tokens of one batch, at most; texts are sorted by length, so little of it is padding.
BATCH_TOKENS: Final = 4096
MAX_TEXTS: Final = 65_536
_POOLINGS: Final = ("mean", "cls", "none")

States = NDArray[np.float32]
#: (input_ids, attention_mask, token_type_ids), each [batch, tokens] → last hidden states [batch, tokens, d]
Encode = Callable[[Ids, Ids, Ids], States]


@dataclass(frozen=True)
class Pooling:
    """How token states become a vector, and where that is said."""

    mode: str
    normalize: bool
    source: str


class SentenceTokenizer:
    """The folder's `tokenizer.json`, truncating where the folder says."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._tokenizer = open_tokenizer(folder, int(config["vocab_size"]))
        self.max_tokens = _max_tokens(folder, config)
        self.pad_id = int(config.get("pad_token_id") or 0)
        self._tokenizer.enable_truncation(self.max_tokens)

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]


class SentenceModel:
    """The family's half of a loaded model; an engine brings `encode`."""

    task = "feature-extraction"

    def __init__(self, facts: ModelFacts, encode: Encode, details: dict[str, Any], precision: str, memory: int) -> None:
        self._tokenizer = SentenceTokenizer(facts.folder, facts.config)
        self._pooling = read_pooling(facts.folder)
        self._width = int(facts.config.get("hidden_size") or facts.config["dim"])
        self._encode = encode
        self.precision = precision
        self.memory_bytes = memory
        self.details = {
            **details,
            "family": "sentence",
            "pooling": self._pooling.mode,
            "normalize": self._pooling.normalize,
            "pooling_from": self._pooling.source,
            "max_tokens": self._tokenizer.max_tokens,
            "dimensions": self._width,
        }

    def run(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Output:
        """`inputs` a text or a list of n; the value is float32 [d] or [n, d], or with pooling "none" raw states.

        Raises:
            BackendError: bad-input, cancelled.
        """
        began = time.perf_counter()
        texts = _texts(inputs)
        pooling = _asked(self._pooling, params)
        ids = self._tokenizer.encode(texts) if texts else []
        tokenized = time.perf_counter()
        vectors = self._embed(ids, pooling, context.cancelled)
        computed = time.perf_counter()
        value = vectors[0] if isinstance(inputs, str) else self._joined(vectors, pooling)
        return Output(
            value,
            {
                "preprocess_s": tokenized - began,
                "compute_s": computed - tokenized,
                "postprocess_s": time.perf_counter() - computed,
            },
            {"texts": len(texts), "tokens": sum(map(len, ids))},
        )

    def samples(self) -> list[Sample]:
        """A short text and a long one."""
        return [Sample(text_of(size), {}, size) for size in SIZES]

    def close(self) -> None:
        self._encode = _closed

    def _embed(self, ids: list[list[int]], pooling: Pooling, cancelled: Callable[[], bool]) -> list[States]:
        vectors: list[States | None] = [None] * len(ids)
        for places in batches([len(each) for each in ids]):
            if cancelled():
                raise BackendError("cancelled", "the job was cancelled")
            input_ids, mask = padded([ids[place] for place in places], self._tokenizer.pad_id)
            states = self._encode(input_ids, mask, np.zeros_like(input_ids))
            for place, vector in zip(places, pool(states, mask, pooling), strict=True):
                vectors[place] = vector
        return [vector for vector in vectors if vector is not None]

    def _joined(self, vectors: list[States], pooling: Pooling) -> Any:
        if pooling.mode == "none":
            return vectors
        return np.stack(vectors) if vectors else np.zeros((0, self._width), np.float32)


def read_pooling(folder: Path) -> Pooling:
    """What `modules.json` says; mean without normalising where the folder says nothing, and that is told.

    Raises:
        BackendError: not-a-model for modules that this family does not know.
    """
    if not (folder / "modules.json").exists():
        return Pooling("mean", False, "default: the folder has no modules.json")
    mode, normalize = "mean", False
    for module in _modules(folder):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Pooling":
            mode = _pooling_mode(read_json(folder, f"{module.get('path', '1_Pooling')}/config.json"))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise BackendError("not-a-model", f"its modules.json has a {kind!r} module, which is not served yet")
    return Pooling(mode, normalize, "modules.json")


def batches(lengths: list[int], budget: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Places of texts of like length, as many at once as fit the budget when padded."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda each: lengths[each]):
        if batch and (len(batch) + 1) * max(lengths[place], 1) > budget:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def pool(states: States, mask: Ids, pooling: Pooling) -> list[States]:
    """One vector [d] a text, or with mode "none" its states [tokens, d] without padding."""
    if pooling.mode == "none":
        return [np.ascontiguousarray(each[: int(kept.sum())]) for each, kept in zip(states, mask, strict=True)]
    if pooling.mode == "cls":
        vectors = states[:, 0]
    else:
        weights = mask[..., None].astype(np.float32)
        vectors = (states * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)
    if pooling.normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return list(vectors.astype(np.float32))


def _modules(folder: Path) -> list[dict[str, Any]]:
    import json

    try:
        modules = json.loads(inside(folder, "modules.json").read_bytes()[: 1 << 20])
    except (OSError, ValueError) as error:
        raise BackendError("not-a-model", f"its modules.json cannot be read ({type(error).__name__})") from None
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise BackendError("not-a-model", "its modules.json is no list of modules")
    return modules


def _pooling_mode(config: dict[str, Any]) -> str:
    if config.get("pooling_mode_cls_token"):
        return "cls"
    if config.get("pooling_mode_mean_tokens") or config.get("pooling_mode") == "mean":
        return "mean"
    raise BackendError("not-a-model", "it pools in a way that is not served yet", "Served: mean and cls.")


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    positions = int(config.get("max_position_embeddings") or 512)
    if (folder / "sentence_bert_config.json").exists():
        given = read_json(folder, "sentence_bert_config.json").get("max_seq_length")
        if isinstance(given, int) and given > 0:
            return min(given, positions)
    return positions


def _texts(inputs: Any) -> list[str]:
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BackendError("bad-input", "the inputs are neither a text nor a list of texts")
    if len(texts) > MAX_TEXTS:
        raise BackendError("too-large", f"{len(texts)} texts are over the limit of {MAX_TEXTS}", "Send fewer at once.")
    return texts


def _asked(default: Pooling, params: dict[str, Any]) -> Pooling:
    unknown = set(params) - {"pooling", "normalize"}
    if unknown:
        raise BackendError("bad-input", f"unknown parameters {sorted(unknown)}", "There are pooling and normalize.")
    mode, normalize = params.get("pooling"), params.get("normalize")
    if mode not in (None, *_POOLINGS) or normalize not in (None, True, False):
        raise BackendError("bad-input", f"pooling is one of {', '.join(_POOLINGS)}, normalize true or false")
    return Pooling(
        default.mode if mode is None else mode,
        default.normalize if normalize is None else bool(normalize),
        default.source if mode is None and normalize is None else "asked for",
    )


def _closed(*_: Ids) -> States:
    raise BackendError("worker-died", "the model was unloaded")

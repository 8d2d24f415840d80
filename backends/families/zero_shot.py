"""What models do that tell a picture, a sound or a film by texts they were never trained on: labels in, scores out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError
from .tokenizing import Ids, open_tokenizer, padded

MAX_LABELS: Final = 1024
_LONGEST_LABEL: Final = 2048


class LabelTexts:
    """The labels as token ids, cut to what the text tower reads."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """`config` is the text tower's."""
        self._tokenizer = open_tokenizer(folder, int(config["vocab_size"]))
        offset = 2 if config.get("model_type") == "clap_text_model" else 0  # RoBERTa counts positions from padding on
        self._tokenizer.enable_truncation(int(config["max_position_embeddings"]) - offset)
        self._pad_id = int(config.get("pad_token_id") or 0)

    def encode(self, texts: list[str]) -> dict[str, Ids]:
        """`input_ids` and `attention_mask`, each [texts, tokens of the longest]."""
        encoded = self._tokenizer.encode_batch(texts)
        input_ids, mask = padded([each.ids for each in encoded], self._pad_id)
        return {"input_ids": input_ids, "attention_mask": mask}


def read_labels(params: dict[str, Any], template: str, others: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The labels as they were given, and as sentences. Raises BackendError bad-input."""
    unknown = sorted(set(params) - {"candidate_labels", "hypothesis_template", *others})
    if unknown:
        raise BackendError(
            "bad-input", f"unknown parameters {', '.join(unknown)}", "There are candidate_labels, hypothesis_template."
        )
    given = params.get("candidate_labels")
    labels = [each.strip() for each in given.split(",")] if isinstance(given, str) else given
    if not isinstance(labels, list) or not all(isinstance(each, str) and each for each in labels) or not labels:
        raise BackendError(
            "bad-input",
            "candidate_labels are missing",
            'Give what to choose from: ["a cat", "a dog"], or "a cat, a dog".',
        )
    if len(labels) > MAX_LABELS or max(map(len, labels)) > _LONGEST_LABEL:
        raise BackendError("too-large", f"over {MAX_LABELS} labels, or over {_LONGEST_LABEL} characters in one", "")
    return labels, [_filled(params.get("hypothesis_template", template), label) for label in labels]


def _filled(template: Any, label: str) -> str:
    if not isinstance(template, str) or template.count("{}") != 1 or len(template) > _LONGEST_LABEL:
        raise BackendError("bad-input", "hypothesis_template is a text with one {} in it", "Like: a photo of a {}.")
    return template.replace("{}", label)


def scored(labels: list[str], logits: NDArray[Any]) -> list[dict[str, Any]]:
    """`[{"score", "label"}, …]`, best first, as pipelines of transformers give it; the scores add up to 1."""
    scores = softmax(logits)
    order = sorted(range(len(labels)), key=lambda place: -scores[place])
    return [{"score": float(scores[place]), "label": labels[place]} for place in order]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    raised = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(raised / raised.sum())

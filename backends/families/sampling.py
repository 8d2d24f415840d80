"""Which token comes next, from logits: as transformers' generation takes or draws it, with numpy alone.

A draw depends on the seed and the token's place alone, so that an output can be taken up again by any engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .text_params import TextParams

Logits = NDArray[np.float32]


def next_token(logits: Logits, ids: Sequence[int], params: TextParams) -> int:
    """`logits` [vocabulary] of the token after `ids`, which are changed."""
    penalty = params.repetition_penalty or 1.0
    if penalty != 1.0:
        said = np.unique(np.asarray(ids, np.int64))
        scores = logits[said]
        logits[said] = np.where(scores < 0, scores * penalty, scores / penalty)
    if not params.samples:
        return int(logits.argmax())
    kept = _likeliest(logits.astype(np.float64) / params.temperature, params)
    chances = np.exp(kept - kept.max())
    return int(np.random.default_rng([params.seed, len(ids)]).choice(len(chances), p=chances / chances.sum()))


def _likeliest(scores: NDArray[np.float64], params: TextParams) -> NDArray[np.float64]:
    """What is not drawn from gets no chance at all."""
    if 0 < params.top_k < len(scores):
        scores = np.where(scores < np.partition(scores, -params.top_k)[-params.top_k], -np.inf, scores)
    if params.top_p < 1.0:
        order = np.argsort(scores, kind="stable")
        chances = np.exp(scores[order] - scores.max())
        unlikely = np.cumsum(chances / chances.sum()) <= 1 - params.top_p
        unlikely[-1] = False
        scores[order[unlikely]] = -np.inf
    return scores

"""What reads something whole and then writes tokens about it, the best one each time: Whisper and T5.

Stages: `read`, and `decode` for one step; see `torch_seq2seq`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext
from .staged import StagedModel

Logits = NDArray[np.float32]
#: Changes the logits [vocabulary] of token number `n` that is to be written.
Adjust = Callable[[Logits, int], None]


class Seq2SeqModel(StagedModel):
    """A staged model that writes."""

    def write(
        self,
        read: NDArray[Any],
        start: Sequence[int],
        ends: frozenset[int],
        limit: int,
        context: RunContext,
        adjust: Adjust = lambda _logits, _number: None,
    ) -> tuple[list[int], bool]:
        """The tokens after `start`, without the one that ends them, and whether there was one."""
        past = np.zeros((*read.shape[:4], 0, read.shape[5]), np.float32)
        written: list[int] = []
        tokens = list(start)
        while len(written) < limit:
            given = np.array([tokens], np.int64)
            logits, past = self.stage("decode", context, tokens=given, past=past, read=read)
            row = logits[0]
            adjust(row, len(written))
            tokens = [int(row.argmax())]
            if tokens[0] in ends:
                return written, True
            written += tokens
        return written, False


def ends_of(said: dict[str, Any], config: dict[str, Any]) -> frozenset[int]:
    """The tokens that end a text."""
    ends = said.get("eos_token_id", config.get("eos_token_id"))
    return frozenset(ends if isinstance(ends, list) else [ends])


def read_limit(params: dict[str, Any], otherwise: int, most: int) -> int:
    """`max_new_tokens`. Raises BackendError bad-input."""
    limit = params.get("max_new_tokens", otherwise)
    if type(limit) is not int or limit < 1:
        raise BackendError("bad-input", f"max_new_tokens is {limit!r}", "It is a whole number from 1.")
    return min(limit, most)


def check_params(params: dict[str, Any], *known: str) -> None:
    """Raises BackendError bad-input for one that there is not."""
    if unknown := sorted(set(params) - set(known)):
        raise BackendError("bad-input", f"unknown parameters {', '.join(unknown)}", f"There are {', '.join(known)}.")

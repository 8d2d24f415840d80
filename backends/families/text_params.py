"""What a caller may ask of text generation, checked: names and meanings as in transformers' generation."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, Final

from ..interface import BackendError

DEFAULT_MAX_NEW_TOKENS: Final = 256
_MOST_NEW_TOKENS: Final = 1 << 17
_MOST_STOPS: Final = 16
_LONGEST_STOP: Final = 256


@dataclass(frozen=True)
class TextParams:
    """How to write.

    Attributes:
        temperature: 0 takes the best token each time (greedy), else logits are divided by it and a token is drawn.
        top_p, top_k: draw from the likeliest tokens that make up `top_p`, and from `top_k` of them at most; 0 is all.
        seed: of the drawing; a token's chance depends on it and on the token's place alone.
        repetition_penalty: above 1 makes what was said already less likely; None is what the model's folder says.
        stop: texts that end the output, and are left out of it.
        chat: whether a plain text is taken as a message to the assistant; None is no.
        ignore_eos: go on to `max_new_tokens` whatever the model says.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    chat: bool | None = None
    ignore_eos: bool = False

    @property
    def samples(self) -> bool:
        return self.temperature > 0


def read_params(given: dict[str, Any]) -> TextParams:
    """Raises BackendError bad-input, which names the parameter and what it takes."""
    unknown = sorted(set(given) - set(TextParams.__dataclass_fields__))
    if unknown:
        known = ", ".join(TextParams.__dataclass_fields__)
        raise BackendError("bad-input", f"unknown parameters {', '.join(unknown)}", f"There are {known}.")
    values = {name: value for name, value in given.items() if value is not None}
    return TextParams(
        _whole("max_new_tokens", values, DEFAULT_MAX_NEW_TOKENS, 1, _MOST_NEW_TOKENS),
        _real("temperature", values, 0.0, 0.0, 100.0),
        _real("top_p", values, 1.0, 1e-6, 1.0),
        _whole("top_k", values, 0, 0, 1 << 20),
        _whole("seed", values, int.from_bytes(os.urandom(4)), 0, (1 << 63) - 1),
        _real("repetition_penalty", values, 1.0, 1e-3, 100.0) if "repetition_penalty" in values else None,
        _stops(values.get("stop", ())),
        _switch("chat", values),
        _switch("ignore_eos", values) or False,
    )


def _whole(name: str, values: dict[str, Any], default: int, low: int, high: int) -> int:
    value = values.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise BackendError("bad-input", f"{name} is a whole number from {low} to {high}, not {_shown(value)}")
    return value


def _real(name: str, values: dict[str, Any], default: float, low: float, high: float) -> float:
    value = values.get(name, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise BackendError("bad-input", f"{name} is a number from {low:g} to {high:g}, not {_shown(value)}")
    return float(value)


def _switch(name: str, values: dict[str, Any]) -> bool | None:
    value = values.get(name)
    if value not in (None, True, False):
        raise BackendError("bad-input", f"{name} is true or false, not {_shown(value)}")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    sound = isinstance(stops, (list, tuple)) and all(isinstance(each, str) and each for each in stops)
    if not sound or len(stops) > _MOST_STOPS or any(len(each) > _LONGEST_STOP for each in stops):
        raise BackendError(
            "bad-input", f"stop is a text or up to {_MOST_STOPS} of them, none empty or over {_LONGEST_STOP} characters"
        )
    return tuple(stops)


def _shown(value: Any) -> str:
    return repr(value)[:60]

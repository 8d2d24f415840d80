"""A canary: the parts of a loaded model are given something, then something else, and what comes out must change.

An engine that gives back what was in its memory, zeros or nonsense is found out so, before anybody's job is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .families.sentence import Encode
from .families.stages import Arrays, Remembering, Stage
from .interface import LoadedModel
from .trial import answer

#: Outputs that differ by less, in parts of the largest number, are the same but for rounding.
_SAME: Final = 1e-5
_IDS: Final = 8
#: Inputs by these words in their names say what counts, and not what it is.
_NOT_CONTENT: Final = ("mask", "type_ids", "position")


@dataclass(frozen=True)
class Canary:
    """What became of it: how many `parts` were tried, in how many `seconds`, and what was wrong."""

    parts: int
    seconds: float
    complaints: tuple[str, ...] = ()


def try_stage(name: str, stage: Stage, given: Arrays) -> Canary:
    """Runs one part twice."""
    began = time.perf_counter()
    complaint = _complaint(name, stage(given), stage(changed(given)))
    return Canary(1, time.perf_counter() - began, (complaint,) if complaint else ())


def some_ids(vocabulary: int) -> dict[str, NDArray[np.int64]]:
    """`input_ids` [1, n] that every model with such a vocabulary knows."""
    return {"input_ids": (np.arange(1, 1 + _IDS, dtype=np.int64) % vocabulary)[None]}


def try_encoding(encode: Encode, vocabulary: int) -> Canary:
    """Runs an encoder twice."""

    def stage(given: Arrays) -> list[NDArray[Any]]:
        ids = given["input_ids"]
        return [encode(ids, np.ones_like(ids), np.zeros_like(ids))]

    return try_stage("the encoder", stage, some_ids(vocabulary))


class Listening:
    """Stages that keep what they were first given, until the canary was tried with it."""

    def __init__(self, stages: dict[str, Stage]) -> None:
        self._inner = stages
        self._heard: dict[str, tuple[Arrays, list[NDArray[Any]]]] = {}
        self._listens = True
        self.stages: dict[str, Stage] = {name: self._tapped(name, stage) for name, stage in stages.items()}

    def run(self, model: LoadedModel) -> Canary:
        """Has the model answer samples until each part ran, then runs each of them with something else.

        Raises:
            BackendError: not-a-model, out-of-memory where it does not answer.
        """
        began = time.perf_counter()
        for sample in model.samples():
            answer(model, sample)
            if len(self._heard) == len(self._inner):
                break
        self._listens = False
        found = [
            _complaint(name, before, self._inner[name](changed(given))) for name, (given, before) in self._heard.items()
        ]
        missing = [f"{name} did not run" for name in self._inner if name not in self._heard]
        self._heard = {}
        complaints = tuple(filter(None, [*found, *missing]))
        return Canary(len(found), time.perf_counter() - began, complaints)

    def _tapped(self, name: str, stage: Stage) -> Stage:
        if isinstance(stage, Remembering):
            return Remembering(lambda: partial(self._run, name, stage.fresh()))
        return partial(self._run, name, stage)

    def _run(self, name: str, stage: Stage, given: Arrays) -> list[NDArray[Any]]:
        results = stage(given)
        if self._listens and name not in self._heard:
            kept = {key: np.array(array) for key, array in given.items()}
            self._heard[name] = kept, [np.array(each) for each in results]
        return results


def changed(given: Arrays) -> dict[str, NDArray[Any]]:
    """The same shapes with other content; ids stay in the vocabulary."""
    return {name: array if _is_no_content(name) else _other(array) for name, array in given.items()}


def _other(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "iu":
        return np.where(array > 0, array - 1, array + 1).astype(array.dtype)
    return (0.25 - array).astype(array.dtype)


def _is_no_content(name: str) -> bool:
    return any(word in name for word in _NOT_CONTENT)


def _complaint(name: str, before: list[NDArray[Any]], after: list[NDArray[Any]]) -> str:
    if not all(np.isfinite(each).all() for each in (*before, *after)):
        return f"{name} gives numbers that are not finite"
    differs: Callable[[NDArray[Any], NDArray[Any]], bool] = _differs
    return "" if any(map(differs, before, after)) else f"{name} gives the same whatever it is given"


def _differs(before: NDArray[Any], after: NDArray[Any]) -> bool:
    if before.shape != after.shape:
        return True
    largest = float(np.abs(before).max(initial=0.0))
    return float(np.abs(before - after).max(initial=0.0)) > _SAME * largest

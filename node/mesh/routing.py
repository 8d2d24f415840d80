"""Which candidate will finish a job first: facts in, a ranking out. Pure.

predicted completion = round trip + queue wait + own dispatches since the advert
                     + (fixed part + work x part a unit) x what was observed over what was predicted
                     + for a cold model: bytes to fetch / measured bandwidth + load time
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...protocols.advert import Speed

#: Assumed to load a model that was never loaded there, in seconds.
_UNKNOWN_LOAD_S: Final = 5.0


@dataclass(frozen=True)
class Candidate:
    """A backend of a node that could run the job. Times in seconds, sizes in bytes, bandwidth in bytes a second.

    `speed` is None where it was never measured; `observed_ratio` corrects it by what jobs really took.
    """

    peer_id: str
    local: bool
    backend: str
    precision: str
    rtt_s: float
    wait_s: float
    dispatched_s: float
    speed: Speed | None
    warm: bool
    load_s: float
    fetch_bytes: int
    bandwidth: float | None
    observed_ratio: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """A candidate, the seconds it is predicted to take, what they are made of, and the reason in a line."""

    candidate: Candidate
    total_s: float
    parts: dict[str, float]
    reason: str


def rank(
    units: float, candidates: Sequence[Candidate], *, rng: random.Random, unit: str = "bytes", near_tie: float = 0.05
) -> list[Prediction]:
    """All candidates, the best first.

    Those measured in `unit` come before those that were not: unlike things are never compared. Among those within
    `near_tie` of the best a local one goes first, else chance decides, so that entry nodes do not herd.
    """
    predictions = [predict(units, candidate, unit) for candidate in candidates]
    measured = [each for each in predictions if is_measured(each.candidate, unit)]
    unmeasured = [each for each in predictions if not is_measured(each.candidate, unit)]
    return _ordered(measured, rng, near_tie) + _ordered(unmeasured, rng, near_tie)


def is_measured(candidate: Candidate, unit: str) -> bool:
    return candidate.speed is not None and candidate.speed.unit == unit


def predict(units: float, candidate: Candidate, unit: str = "bytes") -> Prediction:
    measured = candidate.speed is not None and candidate.speed.unit == unit
    parts = {
        "round_trip": candidate.rtt_s,
        "wait": candidate.wait_s + candidate.dispatched_s,
        "compute": candidate.speed.seconds(units) * candidate.observed_ratio if measured and candidate.speed else 0.0,
        "cold": 0.0 if candidate.warm else _cold_s(candidate),
    }
    total = sum(parts.values())
    return Prediction(candidate, total, parts, _reason(candidate, total, measured))


def _cold_s(candidate: Candidate) -> float:
    fetch_s = candidate.fetch_bytes / candidate.bandwidth if candidate.fetch_bytes and candidate.bandwidth else 0.0
    return (candidate.load_s or _UNKNOWN_LOAD_S) + fetch_s


def _ordered(predictions: list[Prediction], rng: random.Random, near_tie: float) -> list[Prediction]:
    by_time = sorted(predictions, key=lambda each: each.total_s)
    if not by_time:
        return []
    bound = by_time[0].total_s * (1 + near_tie)
    tied = [each for each in by_time if each.total_s <= bound]
    rest = by_time[len(tied) :]
    rng.shuffle(tied)
    return sorted(tied, key=lambda each: not each.candidate.local) + rest


def _reason(candidate: Candidate, total: float, measured: bool) -> str:
    where = "here" if candidate.local else "at a peer"
    if not measured:
        return f"never measured {where}, so it comes after all that were"
    parts = [f"{total * 1e3:.1f} ms predicted {where}"]
    if candidate.wait_s + candidate.dispatched_s > 0:
        parts.append(f"{(candidate.wait_s + candidate.dispatched_s) * 1e3:.1f} ms of it waiting")
    if not candidate.warm:
        parts.append("the model must be loaded first")
    return ", ".join(parts)

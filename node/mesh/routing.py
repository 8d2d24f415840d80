"""Which candidate will finish a job first: facts in, a ranking out. Pure.

predicted completion = round trip + queue wait + own dispatches since the advert
                     + (fixed part + input x part a unit + output x part a token) x observed / predicted so far
                     + for a cold model: bytes to fetch / measured bandwidth + load time
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...protocols.advert import Speed
from ...protocols.work import Work

#: Assumed to load a model that was never loaded there, in seconds.
UNKNOWN_LOAD_S: Final = 5.0
#: Assumed where no bandwidth was ever measured, in bytes a second.
UNKNOWN_BANDWIDTH: Final = 20e6


@dataclass(frozen=True)
class Candidate:
    """A backend of a node that could run the job. Times in seconds, sizes in bytes, bandwidth in bytes a second.

    `speed` is None where it was never measured; `observed_ratio` corrects it by what jobs really took. A
    `penalised` one failed a short while ago: it comes last, and is there still when nobody else is.
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
    penalised: bool = False


@dataclass(frozen=True)
class Prediction:
    """A candidate, the seconds it is predicted to take, what they are made of, and the reason in a line."""

    candidate: Candidate
    total_s: float
    parts: dict[str, float]
    reason: str


def rank(
    work: Work, candidates: Sequence[Candidate], *, rng: random.Random, unit: str = "bytes", near_tie: float = 0.05
) -> list[Prediction]:
    """All candidates, the best first.

    Those measured in `unit` come before those that were not, for unlike things are never compared, and
    penalised ones come last. Among those within `near_tie` of the best a local one goes first, else chance
    decides, so that entry nodes do not herd.
    """
    groups: dict[tuple[bool, bool], list[Prediction]] = {}
    for candidate in candidates:
        group = candidate.penalised, not is_measured(candidate, unit)
        groups.setdefault(group, []).append(predict(work, candidate, unit))
    return [each for group in sorted(groups) for each in _ordered(groups[group], rng, near_tie)]


def is_measured(candidate: Candidate, unit: str) -> bool:
    return candidate.speed is not None and candidate.speed.unit == unit


def predict(work: Work, candidate: Candidate, unit: str = "bytes") -> Prediction:
    """The seconds from now to the result, and their parts. An unmeasured one has no compute part."""
    parts = {
        "round_trip": candidate.rtt_s,
        "wait": candidate.wait_s + candidate.dispatched_s,
        "compute": _compute_s(work, candidate, unit),
        "fetch": _fetch_s(candidate),
        "load": 0.0 if candidate.warm else candidate.load_s or UNKNOWN_LOAD_S,
    }
    total = sum(parts.values())
    return Prediction(candidate, total, parts, _reason(candidate, total, parts, unit))


def _compute_s(work: Work, candidate: Candidate, unit: str) -> float:
    if candidate.speed is None or candidate.speed.unit != unit:
        return 0.0
    return candidate.speed.seconds(work) * candidate.observed_ratio


def _fetch_s(candidate: Candidate) -> float:
    return 0.0 if candidate.warm else candidate.fetch_bytes / (candidate.bandwidth or UNKNOWN_BANDWIDTH)


def _ordered(predictions: list[Prediction], rng: random.Random, near_tie: float) -> list[Prediction]:
    by_time = sorted(predictions, key=lambda each: each.total_s)
    bound = by_time[0].total_s * (1 + near_tie)
    tied = [each for each in by_time if each.total_s <= bound]
    rest = by_time[len(tied) :]
    rng.shuffle(tied)
    return sorted(tied, key=lambda each: not each.candidate.local) + rest


def _reason(candidate: Candidate, total: float, parts: dict[str, float], unit: str) -> str:
    where = "here" if candidate.local else "at a peer"
    if is_measured(candidate, unit):
        said = [f"{_seconds(total)} predicted {where}"]
        if parts["wait"] > 0:
            said.append(f"{_seconds(parts['wait'])} of it waiting")
    elif candidate.speed is not None:
        said = [f"measured {where} in {candidate.speed.unit}, not in {unit}, so it comes after all that compare"]
    else:
        said = [f"never measured {where}, so it comes after all that were"]
    if parts["fetch"] > 0:
        said.append("the model must be fetched first")
    elif not candidate.warm:
        said.append("the model must be loaded first")
    if candidate.penalised:
        said.append("last because it failed a short while ago")
    return ", ".join(said)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"

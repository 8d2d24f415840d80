"""Who could run a job now: this node's offers and its peers', as facts for the ranking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from ..protocols.advert import Offer
from ..protocols.errors import AccelError, ErrorCode
from ..protocols.work import Work
from .availability import PAUSED, RESUME, Availability
from .content.cid import format_cid
from .identity_card import IdentityCard
from .mesh.directory import Directory, Peer
from .mesh.routing import Candidate, Prediction, predict
from .serving.service import ServingService

#: Observed speed counts fully when fresh and half as much after this many seconds.
_OBSERVATION_HALF_LIFE_S = 60.0
_OBSERVATION_WEIGHT = 0.2
_OUTPUTS_WEIGHT = 0.2
_RATIO_BOUNDS = (1 / 8, 8.0)
#: How long a candidate that failed comes last.
_PENALTY_S = 10.0
#: States of a backend that is on its way to being ready, or to having failed.
_UNDECIDED = frozenset({"starting", "probing", "restarting"})

Key = tuple[str, str, bytes]


@dataclass
class _Observation:
    """How much longer than predicted jobs really took (exponentially weighted)."""

    ratio: float = 1.0
    at: float = 0.0

    def now(self, clock: float) -> float:
        return float(1.0 + (self.ratio - 1.0) * 0.5 ** ((clock - self.at) / _OBSERVATION_HALF_LIFE_S))

    def add(self, ratio: float, clock: float) -> None:
        low, high = _RATIO_BOUNDS
        bounded = min(max(ratio, low), high)
        current = self.now(clock)
        self.ratio, self.at = current + _OBSERVATION_WEIGHT * (bounded - current), clock


class CandidateBook:
    """Turns adverts, links and this node's own state into candidates, and keeps what its own jobs taught it."""

    def __init__(
        self,
        card: IdentityCard,
        serving: ServingService,
        directory: Directory,
        model_size: Callable[[bytes], int | None],
        clock: Callable[[], float],
        availability: Availability,
    ) -> None:
        self._card = card
        self._serving = serving
        self._directory = directory
        self._model_size = model_size
        self._clock = clock
        self._availability = availability
        self._observed: dict[Key, _Observation] = defaultdict(_Observation)
        self._outstanding: dict[object, tuple[str, str, float, float]] = {}
        self._failed: dict[tuple[str, str], float] = {}
        self._outputs: dict[bytes, float] = {}

    def candidates(self, cid: bytes, task: str, on: str | None, precision: str | None = None) -> list[Candidate]:
        """Everyone who could run `task` of the model `cid`, in no order.

        `on` leaves one node of them, and `precision` the backends that run the model in it.
        """
        return [
            each
            for each in (*self._local(cid, task), *self._remote(cid, task))
            if (on is None or self._is(each.peer_id, on)) and precision in (None, each.precision)
        ]

    def check_forced(self, on: Any) -> None:
        """Raises AccelError unknown-peer, bad-input when `on` is no text or means more than one node, or paused."""
        if on is None:
            return
        if not isinstance(on, str):
            raise AccelError(ErrorCode.BAD_INPUT, f"a node's name is a text, not {on!r}"[:200])
        everyone = {self._card.node, *(peer.peer_id for peer in self._directory.peers())}
        meant = sorted(peer_id for peer_id in everyone if self._is(peer_id, on))
        if not meant:
            raise AccelError(
                ErrorCode.UNKNOWN_PEER,
                f"no node here is called {on!r}",
                "`ipfs-accel-node peers` lists them.",
            )
        if len(meant) > 1:
            raise AccelError(
                ErrorCode.BAD_INPUT,
                f"{on!r} means more than one node: {', '.join(meant)}",
                "Say one of these.",
            )
        if self._is_paused(meant[0]):
            raise _paused(f"{self.node_name(meant[0])} is paused and computes no new jobs")

    def node_name(self, peer_id: str) -> str:
        if peer_id == self._card.node:
            return self._card.node_name
        peer = self._directory.get(peer_id)
        return peer.name if peer else ""

    @contextmanager
    def dispatched(self, prediction: Prediction) -> Iterator[None]:
        """Counts a job as waiting at its node until an advert newer than this can have counted it."""
        token = object()
        chosen = prediction.candidate
        compute_s = prediction.total_s - prediction.parts.get("wait", 0.0)
        self._outstanding[token] = (chosen.peer_id, chosen.backend, compute_s, self._clock())
        try:
            yield
        finally:
            del self._outstanding[token]

    def observe(self, cid: bytes, prediction: Prediction, done: Work, seconds: float) -> None:
        """Learns from a job that ran warm, by the work it really was; a cold one says nothing of the model's speed."""
        chosen = prediction.candidate
        predicted_s = predict(done, chosen).total_s
        if chosen.speed is None or not chosen.warm or predicted_s <= 0:
            return
        raw_ratio = seconds / predicted_s * chosen.observed_ratio
        self._observed[chosen.peer_id, chosen.backend, cid].add(raw_ratio, self._clock())

    def wrote(self, cid: bytes, outputs: float) -> None:
        """Learns how long this model's outputs are."""
        mean = self._outputs.get(cid, outputs)
        self._outputs[cid] = mean + _OUTPUTS_WEIGHT * (outputs - mean)

    def expected_outputs(self, cid: bytes) -> float:
        """The running mean of this model's outputs in tokens; infinite before the first."""
        return self._outputs.get(cid, inf)

    def failed(self, prediction: Prediction, error: AccelError) -> None:
        """Puts a candidate last for a while; one that was merely full is not to blame."""
        if error.worth_another_node and error.code != ErrorCode.BUSY:
            self._failed[prediction.candidate.peer_id, prediction.candidate.backend] = self._clock()

    def may_still_come(self) -> bool:
        """Whether a backend, here or at a linked peer, has not yet been found to work or not."""
        here = [] if self._availability.is_paused else self._serving.backend_states()
        states = [*here, *(each for peer in self._live() for each in peer.backends)]
        return any(backend.state in _UNDECIDED for backend in states)

    def no_candidate(self, cid: bytes, task: str, on: str | None, precision: str | None = None) -> AccelError:
        if precision is not None and (others := {each.precision for each in self.candidates(cid, task, on)}):
            return AccelError(
                ErrorCode.UNSUPPORTED_PRECISION,
                f"nobody runs {format_cid(cid)} in {precision}",
                f"It runs in {', '.join(sorted(others))}; `start --precision` says in what a node runs models.",
            )
        if self._availability.is_paused and self._here(cid, task):
            return _paused(f"this node is paused, and no other can run {task} of {format_cid(cid)}")
        if self._model_size(cid) is not None and (why := self._serving.why_not(cid)) is not None:
            return why
        where = f" on {on!r}" if on else ""
        return AccelError(
            ErrorCode.NO_BACKEND,
            f"no node{where} can run {task} of {format_cid(cid)}",
            "A node needs both a backend that is ready and the model: see `ipfs-accel-node model ls` and `peers`.",
        )

    def _local(self, cid: bytes, task: str) -> list[Candidate]:
        return [] if self._availability.is_paused else self._here(cid, task)

    def _here(self, cid: bytes, task: str) -> list[Candidate]:
        if self._model_size(cid) is None:
            return self._after_a_fetch(cid, task)
        waits = {state.name: state.wait_s for state in self._serving.backend_states()}
        return [
            self._candidate(self._card.node, offer, local=True, wait_s=waits.get(offer.backend, 0.0))
            for offer in self._serving.offers()
            if offer.cid == cid and offer.task == task
        ]

    def _after_a_fetch(self, cid: bytes, task: str) -> list[Candidate]:
        """This node without the model: it can fetch it, when a peer has it and a backend is ready."""
        holders = [(peer, info) for peer in self._live() for info in peer.models if info.cid == cid]
        if not holders or not any(info.task == task for _, info in holders):
            return []
        precisions = self._serving.precisions()
        bandwidths = [peer.bandwidth for peer, _ in holders if peer.bandwidth]
        return [
            self._candidate(
                self._card.node,
                Offer(
                    cid=cid,
                    backend=state.name,
                    task=task,
                    precision=precisions[state.name],
                    warm=False,
                    load_s=0.0,
                    speed=None,
                ),
                local=True,
                wait_s=state.wait_s,
                fetch_bytes=holders[0][1].size,
                bandwidth=sum(bandwidths) or None,
            )
            for state in self._serving.backend_states()
            if state.state == "ready" and self._serving.can_run(state.name, task)
        ]

    def _remote(self, cid: bytes, task: str) -> Iterator[Candidate]:
        for peer in self._live():
            waits = {state.name: state.wait_s for state in peer.backends}
            for offer in peer.offers:
                if offer.cid == cid and offer.task == task:
                    yield self._candidate(
                        peer.peer_id, offer, rtt_s=peer.rtt_s, wait_s=waits.get(offer.backend, 0.0), peer=peer
                    )

    def _live(self) -> list[Peer]:
        return [peer for peer in self._directory.peers() if peer.linked and peer.state == "ready"]

    def _candidate(
        self, peer_id: str, offer: Offer, *, local: bool = False, peer: Peer | None = None, **facts: Any
    ) -> Candidate:
        observation = self._observed.get((peer_id, offer.backend, offer.cid))
        return Candidate(
            peer_id=peer_id,
            local=local,
            backend=offer.backend,
            precision=offer.precision,
            rtt_s=facts.pop("rtt_s", 0.0),
            wait_s=facts.pop("wait_s"),
            dispatched_s=self._dispatched_s(peer_id, offer.backend, peer),
            speed=offer.speed,
            warm=offer.warm,
            load_s=offer.load_s,
            fetch_bytes=facts.pop("fetch_bytes", 0),
            bandwidth=facts.pop("bandwidth", None),
            observed_ratio=observation.now(self._clock()) if observation else 1.0,
            penalised=self._clock() - self._failed.get((peer_id, offer.backend), -_PENALTY_S) < _PENALTY_S,
        )

    def _dispatched_s(self, peer_id: str, backend: str, peer: Peer | None) -> float:
        """What was sent there since its advert; this node's own queue is known exactly."""
        if peer is None:
            return 0.0
        return sum(
            seconds
            for to, on, seconds, at in self._outstanding.values()
            if (to, on) == (peer_id, backend) and at >= peer.advert_at
        )

    def _is_paused(self, peer_id: str) -> bool:
        if peer_id == self._card.node:
            return self._availability.is_paused
        peer = self._directory.get(peer_id)
        return peer is not None and peer.state == PAUSED

    def _is(self, peer_id: str, on: str) -> bool:
        if on == "local":
            return peer_id == self._card.node
        return on in (peer_id, self.node_name(peer_id)) or (len(on) >= 6 and peer_id.endswith(on))


def _paused(message: str) -> AccelError:
    return AccelError(ErrorCode.PAUSED, message, RESUME)

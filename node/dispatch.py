"""A job's way to the node that will finish it first, and on to the next one when that fails.

    resolve the model ─► rank every candidate ─► attempt at the best ─► result
                              ▲                        │ refused, failed, silent, lost
                              └────────────────────────┘

One deadline holds for all of it. A candidate is tried once a round, there are `MAX_ROUNDS` rounds (while queues are
merely full, the job waits here), and exactly one terminal answer reaches the caller, though computing may happen
twice.
"""

from __future__ import annotations

import logging
import random
from dataclasses import asdict, replace
from typing import Any

import trio

from ..protocols.errors import AccelError, ErrorCode
from ..protocols.inference_session import (
    AcceptedReceived,
    ChunkReceived,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
)
from ..protocols.resumption import OPTION, unpack_payload
from ..protocols.values import pack
from ..protocols.work import Work
from .availability import Availability
from .candidates import CandidateBook
from .catalogue import Catalogue
from .content.cid import format_cid
from .delivered import Delivered
from .exchanges import Answer, Exchange, Incoming
from .finished_jobs import FinishedJobs, digest
from .identity_card import IdentityCard
from .job import Attempt, Job, JobCounters
from .mesh.mesh import Mesh
from .mesh.routing import Prediction, rank
from .running import RunningJobs
from .serving.service import ServingService

log = logging.getLogger(__name__)

MAX_ROUNDS = 3
_ROUND_PAUSE_S = 0.3
_BUSY_PAUSE_S = 0.2
_LOOK_EVERY_S = 0.1
#: Candidates and attempts that a report tells of at most: it has to fit a frame however large the cluster is.
_MOST_TOLD = 32
#: What a peer may take to accept or refuse, beyond ten of its round trips.
_ACCEPT_GRACE_S = 2.0
#: Worth trying again there a little later: the worker restarts, the queue empties, the link comes back.
_PASSES = frozenset({ErrorCode.WORKER_DIED, ErrorCode.BUSY, ErrorCode.PEER_LOST, ErrorCode.PEER_SILENT})

Outcome = tuple[dict[str, Any], bytes]


class Dispatcher:
    """Runs the jobs that are submitted at this node, here or at a peer."""

    def __init__(
        self,
        card: IdentityCard,
        catalogue: Catalogue,
        serving: ServingService,
        mesh: Mesh,
        book: CandidateBook,
        availability: Availability,
        running: RunningJobs,
    ) -> None:
        self._card = card
        self._catalogue = catalogue
        self._serving = serving
        self._mesh = mesh
        self._book = book
        self._availability = availability
        self._running = running
        self._rng = random.Random()  # noqa: S311 — spreads load, keeps no secret
        self._finished = FinishedJobs(trio.current_time)
        self.counters = JobCounters()

    async def run(self, incoming: Incoming) -> None:
        """Answers `incoming` with its result, or raises the AccelError that becomes its answer."""
        self._availability.check_takes()
        with self.counters.counted():
            started = trio.current_time()
            deadline = started + incoming.request.remaining_ms / 1000
            cid = self._catalogue.resolve(incoming.request.model)
            self._book.check_forced(incoming.request.options.get("on"))
            incoming.accept(0, 0.0)
            with trio.move_on_at(deadline), self._running.listed(incoming, cid, own=True):
                job = await self._job(incoming, cid, started, deadline)
                report, payload = await self._result_of(job)
                incoming.result(report, payload)
                return
            raise AccelError(
                ErrorCode.DEADLINE_EXCEEDED,
                f"the job did not finish within {incoming.request.remaining_ms / 1000:g} s",
                "Give it more time (--timeout) or look at `ipfs-accel-node peers`.",
            )

    async def _job(self, incoming: Incoming, cid: bytes, started: float, deadline: float) -> Job:
        """A job as it came; one that its client asks for again may go on from what it had."""
        payload, had = await incoming.payload(), Delivered()
        if incoming.request.options.get(OPTION) is True:
            asked = unpack_payload(payload, incoming.request.options)
            payload, had = pack(asked.inputs), Delivered(asked.token_ids, asked.characters)
        return Job(incoming, cid, payload, started, deadline, had, self._book.expected_outputs(cid))

    async def _result_of(self, job: Job) -> Outcome:
        """The job's result, computed now, or a short while ago when it is asked for again."""
        request = job.request
        params = request.params if job.precision is None else {**request.params, "precision": job.precision}
        asked = digest(job.cid, request.task, params, job.payload)
        if (finished := self._finished.get(request.job_id, asked)) is not None:
            return {**finished.report, "repeated": True}, finished.payload
        report, payload = await self._try_all(job)
        report = self._complete(job, report)
        self._finished.put(request.job_id, asked, report, payload)
        return report, payload

    async def _try_all(self, job: Job) -> Outcome:
        await self._wait_for_backends(job)
        rounds = 0
        while rounds < MAX_ROUNDS:
            if (outcome := await self._try_round(job)) is not None:
                return outcome
            codes = {error.code for error in job.failures.values()}
            if not codes & _PASSES:
                break
            if codes == {ErrorCode.BUSY}:
                # Everybody's queue is full: the job waits here, where its own deadline bounds it.
                job.incoming.progress("waiting", 0, 0, "every queue is full")
                await trio.sleep(_BUSY_PAUSE_S * self._rng.uniform(0.5, 1.5))
            else:
                rounds += 1
                await trio.sleep(_ROUND_PAUSE_S * 2**rounds)
            self._allow_again(job)
        raise self._nothing_left(job)

    async def _try_round(self, job: Job) -> Outcome | None:
        """The result of the first candidate that gives one; None when each was tried and may be tried again."""
        while predictions := self._rank(job):
            try:
                return await self._attempt(job, predictions[0])
            except AccelError as error:
                if not error.worth_another_node:
                    raise
                log.info("job %s goes elsewhere: %s", job.request.job_id.hex(), error)
        return None

    async def _wait_for_backends(self, job: Job) -> None:
        """A node takes jobs from its first moment, when its backends may still be probing."""
        while not self._rank(job) and self._book.may_still_come():
            job.incoming.progress("starting", 0, 0, "a backend is still being looked at")
            await trio.sleep(_LOOK_EVERY_S)

    def _rank(self, job: Job) -> list[Prediction]:
        candidates = [
            candidate
            for candidate in self._book.candidates(
                job.cid, job.request.task, job.request.options.get("on"), job.precision
            )
            if (candidate.peer_id, candidate.backend) not in job.failures
        ]
        predictions = rank(job.work, candidates, rng=self._rng)
        if predictions and not job.route:
            job.route = self._explain(predictions)
        return predictions

    async def _attempt(self, job: Job, prediction: Prediction) -> Outcome:
        chosen = prediction.candidate
        attempt = Attempt(prediction, job.work, trio.current_time(), len(job.delivered.token_ids))
        self._running.moved(job.incoming, self._book.node_name(chosen.peer_id), chosen.backend)
        try:
            with self._book.dispatched(prediction):
                outcome = await (self._here if chosen.local else self._at_peer)(job, prediction)
        except AccelError as error:
            job.failures[chosen.peer_id, chosen.backend] = error
            self._book.failed(prediction, error)
            self._record(job, attempt, error.code)
            raise
        self._learn(job, attempt, outcome[0])
        self._record(job, attempt, "ok")
        return outcome

    def _learn(self, job: Job, attempt: Attempt, report: dict[str, Any]) -> None:
        counts = report.get("counts")
        wrote = Work.of({"outputs": counts.get("output_tokens")} if isinstance(counts, dict) else {}).outputs
        done = replace(attempt.work, outputs=wrote)
        self._book.observe(job.cid, attempt.prediction, done, trio.current_time() - attempt.began)
        if wrote:
            self._book.wrote(job.cid, attempt.outputs_before + wrote)

    async def _here(self, job: Job, prediction: Prediction) -> Outcome:
        await self._catalogue.ensure_here(job.cid, on_progress=job.incoming.progress)
        self._availability.check_computes()
        request = job.next_request(prediction.candidate.backend)
        with self._serving.admit(request) as admission:
            return await self._serving.execute(
                admission,
                request,
                job.next_payload(),
                on_progress=job.incoming.progress,
                on_chunk=job.take_chunk,
            )

    async def _at_peer(self, job: Job, prediction: Prediction) -> Outcome:
        link = self._mesh.link(prediction.candidate.peer_id)
        if link is None:
            raise AccelError(ErrorCode.PEER_LOST, "the peer is not connected any more")
        request = job.next_request(prediction.candidate.backend)
        async with link.channel.request(request, job.next_payload()) as exchange:
            first = await _first_answer(exchange, _ACCEPT_GRACE_S + 10 * prediction.candidate.rtt_s)
            outcome = await self._follow(job, first)
            while outcome is None:
                outcome = await self._follow(job, await anext(exchange))
            return outcome

    async def _follow(self, job: Job, event: Answer) -> Outcome | None:
        match event:
            case ResultReceived(_, report, payload):
                return report, payload
            case RefusedReceived(_, code, message, hint) | FailedReceived(_, code, message, hint):
                raise AccelError(code, message, hint)
            case ProgressReceived(_, state, done, total, note):
                job.incoming.progress(state, done, total, note or f"on {self._running.where(job.incoming)}")
            case ChunkReceived(_, offset, token_ids, text):
                await job.take_chunk(offset, token_ids, text)
            case AcceptedReceived():
                pass
        return None

    def _allow_again(self, job: Job) -> None:
        job.failures = {key: error for key, error in job.failures.items() if error.code not in _PASSES}

    def _record(self, job: Job, attempt: Attempt, outcome: str) -> None:
        chosen = attempt.prediction.candidate
        place = (chosen.peer_id, chosen.backend, str(outcome))
        if outcome == ErrorCode.BUSY and any(place == (a["node"], a["backend"], a["outcome"]) for a in job.attempts):
            return  # a full queue is told once, however often the job had to ask
        if outcome != "ok" and len(job.attempts) >= _MOST_TOLD:
            return
        job.attempts.append(
            {
                "node": chosen.peer_id,
                "node_name": self._book.node_name(chosen.peer_id),
                "backend": chosen.backend,
                "precision": chosen.precision,
                "outcome": str(outcome),
                "seconds": trio.current_time() - attempt.began,
                "outputs": len(job.delivered.token_ids) - attempt.outputs_before,
            }
        )

    def _explain(self, predictions: list[Prediction]) -> dict[str, Any]:
        return {
            "reason": predictions[0].reason,
            "candidates": [
                {
                    "node": prediction.candidate.peer_id,
                    "node_name": self._book.node_name(prediction.candidate.peer_id),
                    "local": prediction.candidate.local,
                    "backend": prediction.candidate.backend,
                    "predicted_s": prediction.total_s,
                    "parts": dict(prediction.parts),
                    "reason": prediction.reason,
                    "measured": prediction.candidate.speed is not None,
                }
                for prediction in predictions[:_MOST_TOLD]
            ],
        }

    def _complete(self, job: Job, report: dict[str, Any]) -> dict[str, Any]:
        if "node" not in report:
            report = {**report, **asdict(self._card)}
        return {
            **report,
            "job_id": job.request.job_id.hex(),
            "model": format_cid(job.cid),
            "local": report["node"] == self._card.node,
            "attempts": job.attempts,
            "route": job.route,
            "total_s": trio.current_time() - job.started,
        }

    def _nothing_left(self, job: Job) -> AccelError:
        if not job.attempts:
            mismatch = self._catalogue.mismatch(job.cid, job.request.task)
            return mismatch or self._book.no_candidate(
                job.cid, job.request.task, job.request.options.get("on"), job.precision
            )
        if len(job.failures) == 1:
            return next(iter(job.failures.values()))
        tried = "; ".join(f"{each['node_name']} {each['backend']}: {each['outcome']}" for each in job.attempts)
        return AccelError(
            job.attempts[-1]["outcome"],
            f"every candidate failed ({tried})",
            "`ipfs-accel-node peers` shows who is there; the nodes' logs say more.",
        )


async def _first_answer(exchange: Exchange, seconds: float) -> Answer:
    with trio.move_on_after(seconds):
        return await anext(exchange)
    raise AccelError(ErrorCode.PEER_SILENT, f"the peer neither accepted nor refused within {seconds:.1f} s")

"""A job on its way through the worker, and out of it again when its caller leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ...protocols.inference_session import (
    ChunkReceived,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
)
from ..exchanges import Answer
from .job_queue import JobQueue
from .scheduler import Ticket, TicketState
from .worker_queue import BEGUN, RELEASED
from .workers import Worker, WorkerLostError

OnProgress = Callable[[str, int, int, str], None]
OnChunk = Callable[[int, list[int], str], Awaitable[None]]


class WorkerJobs:
    """The jobs of one worker. `start` runs something on nobody's behalf; see `SlotSettings.stuck_after_s`."""

    def __init__(self, worker: Worker, queue: JobQueue, start: Callable[..., None], stuck_after_s: float) -> None:
        self._worker = worker
        self._queue = queue
        self._start = start
        self._stuck_after_s = stuck_after_s

    async def run(
        self, ticket: Ticket, request: Request, payload: bytes, on_progress: OnProgress, on_chunk: OnChunk
    ) -> ResultReceived:
        """The worker's answer. Leaving early cancels the job there.

        Raises:
            WorkerLostError: the worker died.
            AccelError: what the worker answered.
        """
        async with self._worker.channel.request(request, payload) as exchange:
            ended = False
            try:
                async for event in exchange:
                    ended = isinstance(event, (ResultReceived, FailedReceived, RefusedReceived))
                    if isinstance(event, ResultReceived):
                        return event
                    await self._follow(ticket, event, on_progress, on_chunk)
            finally:
                if not ended:
                    self._linger(ticket, exchange.request_id)
        raise self._lost(ticket)

    async def _follow(self, ticket: Ticket, event: Answer, on_progress: OnProgress, on_chunk: OnChunk) -> None:
        match event:
            case ProgressReceived(_, state, _, _, _) if state == BEGUN:
                self._queue.scheduler.started(ticket)
            case ProgressReceived(_, state, done, total, note):
                on_progress(state, done, total, note)
            case ChunkReceived(_, offset, token_ids, text):
                await on_chunk(offset, token_ids, text)
            case FailedReceived(_, code, _, _) if code == ErrorCode.PEER_LOST:
                raise self._lost(ticket)
            case FailedReceived(_, code, message, hint) | RefusedReceived(_, code, message, hint):
                raise AccelError(code, message, hint)

    def _lost(self, ticket: Ticket) -> WorkerLostError:
        return WorkerLostError(self._worker.backend, begun=ticket.state is TicketState.COMPUTING)

    def _linger(self, ticket: Ticket, request_id: int) -> None:
        """The caller left: the ticket keeps its place until the worker is free of the job."""
        self._queue.scheduler.linger(ticket)
        try:
            self._start(self._await_release, ticket, request_id)
        except AccelError:
            self._queue.finish(ticket)

    async def _await_release(self, ticket: Ticket, request_id: int) -> None:
        try:
            await self._worker.call(RELEASED, {"request": request_id}, timeout=self._stuck_after_s)
        except AccelError as error:
            if error.code == ErrorCode.DEADLINE_EXCEEDED:
                self._worker.kill(f"a cancelled job did not stop within {self._stuck_after_s:g} s")
        finally:
            self._queue.finish(ticket)

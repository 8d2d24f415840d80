"""The worker process: holds one backend's models and computes, one job at a time.

    python -P -m ipfs_accel_node.node.serving.worker_main --backend cpu --fd 5 --threads 2 --cache DIR

It speaks the inference protocol's frames over the inherited socket; the node is the dialler. Four threads:

    main     reads: answers pings and takes cancels while another computes; ends the process when the socket closes
    compute  takes one operation after another
    ahead    sees the images of the next job while another is computed
    write    sends what waits, so that computing never waits for a slow reader

Neither trio nor libp2p is imported here, and an engine only in the process that computes with it.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...backends.interface import BackendError
from ...protocols import values
from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from ...protocols.inference import Request
from ...protocols.inference_session import (
    CallReceived,
    Cancelled,
    Event,
    PayloadReceived,
    RequestReceived,
    Session,
)
from .worker_link import Link, or_end
from .worker_models import WorkerJob, WorkerModels
from .worker_queue import BEGUN, RELEASED, Work, WorkQueue

log = logging.getLogger(__name__)

_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

Answer = tuple[dict[str, Any], Any]


class Worker:
    """What arrives is queued by the reading thread and answered by the computing one."""

    def __init__(self, link: Link, models: WorkerModels, queue: WorkQueue) -> None:
        self._link = link
        self._models = models
        self._queue = queue
        self._incomplete: dict[int, Request] = {}

    def take(self, event: Event) -> None:
        """What the reading thread does with an event: at once, whatever is being computed."""
        match event:
            case RequestReceived(request_id, request, None):
                # Its inputs follow only when it is accepted.
                self._incomplete[request_id] = request
                self._link.say(lambda session: session.accept(request_id, self._queue.length, 0))
            case RequestReceived(request_id, request, bytes(payload)):
                self._enqueue_job(request_id, request, payload, accepted=False)
            case PayloadReceived(request_id, payload) if request_id in self._incomplete:
                self._enqueue_job(request_id, self._incomplete.pop(request_id), payload, accepted=True)
            case CallReceived(request_id, str(method), payload) if method == RELEASED:
                self._answer_when_released(request_id, payload)
            case CallReceived(request_id, method, payload):
                self._enqueue(Work(request_id, partial(self._call, request_id, method, payload)))
            case Cancelled(request_id):
                self._incomplete.pop(request_id, None)
                self._queue.cancel(request_id)

    def compute_all(self) -> None:
        while True:
            work = self._queue.take()
            try:
                self._answer(work)
            finally:
                self._queue.done(work)

    def look_ahead(self) -> None:
        while True:
            work = self._queue.take_ahead()
            try:
                if work.look_ahead is not None:
                    work.look_ahead()
            finally:
                self._queue.looked_at(work)

    def _enqueue_job(self, request_id: int, request: Request, payload: bytes, *, accepted: bool) -> None:
        work = Work(request_id, lambda: None)
        job = WorkerJob(self._models, request, payload, lambda: work.cancelled)
        work.run, work.look_ahead = partial(self._job, work, job, accepted), job.look_ahead
        self._enqueue(work)

    def _enqueue(self, work: Work) -> None:
        if not self._queue.put(work):
            self._fail(work.request_id, ErrorCode.BUSY, "the worker's queue is full")

    def _answer_when_released(self, request_id: int, payload: bytes) -> None:
        try:
            awaited = int(values.unpack(payload)["request"])
        except (ProtocolError, KeyError, TypeError, ValueError):
            self._fail(request_id, ErrorCode.BAD_INPUT, "released needs a request id")
            return
        nothing = values.pack(None)
        answer = partial(self._link.say, lambda session: session.result(request_id, {}, nothing))
        self._queue.when_released(awaited, answer)

    def _answer(self, work: Work) -> None:
        """Runs the work and says what came of it; whatever it raises becomes a coded answer."""
        try:
            report, value = work.run()
            payload = values.pack(value)
            self._check_size(payload)
            self._link.say(lambda session: session.result(work.request_id, report, payload))
        except (AccelError, BackendError) as error:
            self._fail(work.request_id, error.code, error.message, error.hint)
        except MemoryError:
            self._fail(work.request_id, ErrorCode.OUT_OF_MEMORY, "the memory of the worker is used up")
        except BaseException as error:
            # Libraries raise SystemExit and worse; one job must not take the others' worker away.
            log.exception("an operation failed")
            self._fail(work.request_id, ErrorCode.INTERNAL, _in_one_line(error), "The node's log says more.")

    def _check_size(self, payload: bytes) -> None:
        limit = self._link.limits.max_payload
        if len(payload) > limit:
            raise AccelError(ErrorCode.TOO_LARGE, f"the result has {len(payload)} bytes, over the limit of {limit}")

    def _fail(self, request_id: int, code: str, message: str, hint: str = "") -> None:
        self._link.say(lambda session: session.fail(request_id, code, message[:2000], hint[:2000]))

    def _job(self, work: Work, job: WorkerJob, accepted: bool) -> Answer:
        def begin(session: Session) -> None:
            if not accepted:
                session.accept(work.request_id, 0, 0)
            session.progress(work.request_id, BEGUN, 0, 1)

        def emit(offset: int, token_ids: list[int], text: str) -> None:
            self._link.say(lambda session: session.chunk(work.request_id, offset, token_ids, text))

        self._link.say(begin)
        return job.run(emit)

    def _call(self, request_id: int, method: str, payload: bytes) -> Answer:
        def progress(state: str, done: int, total: int) -> None:
            self._link.say(lambda session: session.progress(request_id, state, done, total))

        progress(BEGUN, 0, 1)
        return {}, self._models.call(method, values.unpack(payload), progress)


def _in_one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def _prepare_environment(threads: int) -> None:
    """Before any engine is imported, for they look at it once."""
    os.environ.update(_OFFLINE | dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    _prepare_environment(options.threads)
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    link = Link(connection)
    queue = WorkQueue()
    models = WorkerModels(options.backend, options.threads, options.cache, lambda: queue.is_awaited)
    worker = Worker(link, models, queue)
    for loop in (worker.compute_all, worker.look_ahead, link.write_all):
        threading.Thread(target=or_end, args=(loop,), daemon=True).start()
    or_end(partial(link.read_all, worker.take))


if __name__ == "__main__":
    main()

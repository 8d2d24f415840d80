"""The worker process: holds one backend's models and computes, one job at a time.

    python -P -m ipfs_accel_node.node.serving.worker_main --backend cpu --fd 5 --threads 2 --cache DIR

It speaks the inference protocol's frames over the inherited socket; the node is the dialler. Three threads:

    main     reads: answers pings and takes cancels while another computes; ends the process when the socket closes
    compute  takes one operation after another
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
from collections.abc import Callable
from contextlib import suppress
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
    Limits,
    PayloadReceived,
    RequestReceived,
    Session,
)
from .worker_models import WorkerModels
from .worker_queue import BEGUN, RELEASED, Work, WorkQueue

log = logging.getLogger(__name__)

_READ_SIZE: Final = 1 << 18
_WRITE_SIZE: Final = 1 << 18
_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

Answer = tuple[dict[str, Any], Any]


class Link:
    """One session over one socket, for several threads. Nothing here waits for the socket but `write_all`.

    Who has something to say sends it at once as far as the socket takes it, which saves a thread's turn; the writing
    thread sends the rest.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.limits = Limits()
        self._session = Session(dialler=False, limits=self.limits)
        self._changed = threading.Condition()
        self._rest = memoryview(b"")

    def say(self, speak: Callable[[Session], None]) -> None:
        """Lets `speak` answer through the session and sends what may go."""
        with self._changed:
            speak(self._session)
            self._send_at_once()

    def read_all(self, take: Callable[[Event], None]) -> None:
        """Returns when the other side has closed. Raises OSError or ProtocolError when the conversation broke."""
        while data := self._connection.recv(_READ_SIZE):
            with self._changed:
                events = self._session.receive(data)
                self._send_at_once()
            for event in events:
                take(event)

    def write_all(self) -> None:
        while True:
            with self._changed:
                while not self._rest:
                    self._changed.wait()
            # No other thread touches the rest while there is some.
            self._connection.sendall(self._rest)
            with self._changed:
                self._rest = memoryview(b"")
                self._send_at_once()

    def _send_at_once(self) -> None:
        while not self._rest and (data := self._session.data_to_send(_WRITE_SIZE)):
            sent = 0
            with suppress(BlockingIOError):
                sent = self._connection.send(data, socket.MSG_DONTWAIT)
            self._rest = memoryview(data)[sent:]
        if self._rest:
            self._changed.notify()


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

    def _enqueue_job(self, request_id: int, request: Request, payload: bytes, *, accepted: bool) -> None:
        work = Work(request_id, lambda: None)
        work.run = partial(self._job, work, request, payload, accepted)
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

    def _job(self, work: Work, request: Request, payload: bytes, accepted: bool) -> Answer:
        def begin(session: Session) -> None:
            if not accepted:
                session.accept(work.request_id, 0, 0)
            session.progress(work.request_id, BEGUN, 0, 1)

        def emit(offset: int, token_ids: list[int], text: str) -> None:
            self._link.say(lambda session: session.chunk(work.request_id, offset, token_ids, text))

        self._link.say(begin)
        return self._models.run(request, payload, cancelled=lambda: work.cancelled, emit=emit)

    def _call(self, request_id: int, method: str, payload: bytes) -> Answer:
        def progress(state: str, done: int, total: int) -> None:
            self._link.say(lambda session: session.progress(request_id, state, done, total))

        progress(BEGUN, 0, 1)
        return {}, self._models.call(method, values.unpack(payload), progress)


def _in_one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def _end(status: int) -> None:
    """Ends the process at once, whatever its other threads do, and with it what it started."""
    logging.shutdown()
    if os.getpgrp() == os.getpid():
        with suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(status)


def _or_end(loop: Callable[[], None]) -> None:
    """A worker without one of its threads is worth nothing: the node starts another."""
    try:
        loop()
    except (OSError, ProtocolError) as error:
        log.debug("the node is gone: %s", error)
    except BaseException:
        log.exception("the worker ends")
        _end(1)
    _end(0)


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
    for loop in (worker.compute_all, link.write_all):
        threading.Thread(target=_or_end, args=(loop,), daemon=True).start()
    _or_end(partial(link.read_all, worker.take))


if __name__ == "__main__":
    main()

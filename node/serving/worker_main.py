"""The worker process: holds one backend's models and computes, one job at a time.

    python -m ipfs_accel_node.node.serving.worker_main --backend cpu --fd 5 --threads 2 --cache DIR

It speaks the inference protocol's frames over the inherited socket, the node being the dialler. Three threads: one
reads (and so answers pings and takes cancels while another computes), one computes, one writes, so that computing
never waits for a reader. When the socket closes the process ends at once, whatever it was doing.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends import registry
from ...backends.interface import Backend, BackendError, LoadedModel, LoadOptions
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
from .measuring import measure

log = logging.getLogger(__name__)

_MOST_QUEUED = 1024
_READ_SIZE = 1 << 20
_PROGRESS_EVERY_S = 0.05


class Worker:
    """One backend behind one socket."""

    def __init__(self, connection: socket.socket, backend_name: str, threads: int, cache: Path) -> None:
        self._connection = connection
        self._backend_name = backend_name
        self._made: Backend | None = None
        self._threads = threads
        self._cache = cache
        self._models: dict[str, LoadedModel] = {}
        self._session = Session(dialler=False, limits=Limits(max_open=_MOST_QUEUED))
        self._lock = threading.Lock()
        self._to_write = threading.Event()
        self._work: queue.Queue[Callable[[], None]] = queue.Queue(_MOST_QUEUED)
        self._waiting: dict[int, Request] = {}
        self._cancelled: dict[int, threading.Event] = {}

    def serve(self) -> None:
        """Reads until the socket closes, then ends the process."""
        for loop in (self._compute_all, self._write_all):
            threading.Thread(target=_or_exit, args=(loop,), daemon=True).start()
        _or_exit(self._read_all)

    def _read_all(self) -> None:
        while data := self._connection.recv(_READ_SIZE):
            with self._lock:
                events = self._session.receive(data)
            for event in events:
                self._take(event)
            self._to_write.set()
        os._exit(0)

    def _write_all(self) -> None:
        while True:
            self._to_write.wait()
            self._to_write.clear()
            while data := self._next_to_write():
                self._connection.sendall(data)

    def _next_to_write(self) -> bytes:
        with self._lock:
            return self._session.data_to_send(1 << 18)

    def _compute_all(self) -> None:
        while True:
            self._work.get()()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived(request_id, request, payload):
                self._cancelled[request_id] = threading.Event()
                self._say(self._session.accept, request_id, self._work.qsize(), 0)
                if payload is None:
                    self._waiting[request_id] = request
                else:
                    self._queue_job(request_id, request, payload)
            case PayloadReceived(request_id, payload) if request_id in self._waiting:
                self._queue_job(request_id, self._waiting.pop(request_id), payload)
            case CallReceived(request_id, method, payload):
                self._cancelled[request_id] = threading.Event()
                self._work.put(lambda: self._run_call(request_id, method, payload))
            case Cancelled(request_id):
                self._waiting.pop(request_id, None)
                if request_id in self._cancelled:
                    self._cancelled[request_id].set()

    def _say(self, answer: Callable[..., None], *arguments: Any) -> None:
        with self._lock:
            answer(*arguments)
        self._to_write.set()

    def _queue_job(self, request_id: int, request: Request, payload: bytes) -> None:
        self._work.put(lambda: self._answer(request_id, lambda stop: self._job(request, payload, stop)))

    def _run_call(self, request_id: int, method: str, payload: bytes) -> None:
        def call(_stop: Callable[[], bool]) -> tuple[dict[str, Any], Any]:
            operation = getattr(self, f"_call_{method}", None)
            if operation is None:
                raise AccelError(ErrorCode.UNKNOWN_METHOD, f"a worker has no operation {method!r}")
            return {}, operation(request_id, values.map_arrays(values.unpack(payload)))

        self._answer(request_id, call)

    def _answer(self, request_id: int, work: Callable[[Callable[[], bool]], tuple[dict[str, Any], Any]]) -> None:
        """Runs `work` and says what came of it; whatever it raises becomes a coded answer."""
        cancelled = self._cancelled[request_id]
        try:
            if not cancelled.is_set():
                report, value = work(cancelled.is_set)
                self._say(self._session.result, request_id, report, values.pack(value))
        except (AccelError, BackendError) as error:
            self._say(self._session.fail, request_id, error.code, error.message, error.hint)
        except MemoryError:
            self._say(self._session.fail, request_id, ErrorCode.OUT_OF_MEMORY, "the worker's memory is used up", "")
        except Exception as error:
            log.exception("a job failed")
            self._say(self._session.fail, request_id, ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"[:500], "")
        finally:
            del self._cancelled[request_id]

    @property
    def _backend(self) -> Backend:
        """Made in the computing thread when it is first asked for, so that why it cannot be made is an answer."""
        if self._made is None:
            self._made = registry.create(self._backend_name)
        return self._made

    def _job(self, request: Request, payload: bytes, stop: Callable[[], bool]) -> tuple[dict[str, Any], Any]:
        model = self._models.get(request.model)
        if model is None:
            raise AccelError(ErrorCode.WORKER_DIED, "the model is not loaded in this worker any more")
        if request.task != model.task:
            raise AccelError(
                ErrorCode.UNSUPPORTED_TASK, f"this model cannot do {request.task}", f"It does {model.task}."
            )
        inputs = values.map_arrays(values.unpack(payload))
        output = model.run(inputs, dict(request.params), cancelled=stop)
        return {"timings": output.timings, "counts": output.counts}, output.value

    def _call_probe(self, _request_id: int, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self._backend.probe()).items()}

    def _call_load(self, request_id: int, arguments: dict[str, Any]) -> dict[str, Any]:
        key, began = arguments["key"], time.monotonic()
        options = LoadOptions(
            cache=self._cache,
            key=key,
            precision=arguments["precision"],
            threads=self._threads,
            progress=lambda state, done, total: self._say(
                self._session.progress, request_id, state, done, total, self._backend_name
            ),
        )
        model = self._models[key] = self._backend.load(Path(arguments["folder"]), options)
        return {
            "task": model.task,
            "precision": model.precision,
            "memory_bytes": model.memory_bytes,
            "details": model.details,
            "load_s": time.monotonic() - began,
        }

    def _call_unload(self, _request_id: int, arguments: dict[str, Any]) -> bool:
        model = self._models.pop(arguments["key"], None)
        if model is not None:
            model.close()
        return model is not None

    def _call_measure(self, _request_id: int, arguments: dict[str, Any]) -> dict[str, Any]:
        return asdict(measure(self._models[arguments["key"]], budget_s=arguments["seconds"]))


def _or_exit(loop: Callable[[], None]) -> None:
    """A worker without one of its threads is worth nothing: the node starts another."""
    try:
        loop()
    except (OSError, ProtocolError) as error:
        log.info("the node is gone: %s", error)
    except BaseException:
        log.exception("the worker ends")
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    Worker(connection, options.backend, options.threads, options.cache).serve()


if __name__ == "__main__":
    main()

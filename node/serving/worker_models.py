"""The operations of a worker process on one backend and the models loaded in it. Blocking, for one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...backends import registry
from ...backends.figures import figures
from ...backends.interface import (
    Backend,
    BackendError,
    Emit,
    LoadedModel,
    LoadOptions,
    LooksAhead,
    OnProgress,
    Prefix,
    RunContext,
)
from ...backends.weights import weights_of
from ...protocols import values
from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from ...protocols.inference import Request
from ...protocols.resumption import Resumption, unpack_payload
from .measuring import BUDGET_S, measure

log = logging.getLogger(__name__)


class WorkerModels:
    """Models by key. A key means one model for the life of the process.

    Args:
        is_awaited: whether something else waits to be done here.
    """

    def __init__(self, backend: str, threads: int, cache: Path, is_awaited: Callable[[], bool]) -> None:
        self._backend_name = backend
        self._threads = threads
        self._cache = cache
        self._is_awaited = is_awaited
        self._backend: Backend | None = None
        self._models: dict[str, LoadedModel] = {}
        self._operations: dict[str, Callable[[dict[str, Any], OnProgress], Any]] = {
            "probe": self._probe,
            "load": self._load,
            "unload": self._unload,
            "measure": self._measure,
        }

    def for_task(self, key: str, task: str) -> LoadedModel:
        """Raises AccelError."""
        model = self._model(key)
        if task != model.task:
            raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"this model cannot do {task}", f"It does {model.task}.")
        return model

    def call(self, method: str, arguments: Any, progress: OnProgress) -> Any:
        """Raises AccelError, BackendError."""
        operation = self._operations.get(method)
        if operation is None:
            raise AccelError(ErrorCode.UNKNOWN_METHOD, f"a worker has no operation {method!r}")
        return operation(arguments, progress)

    def _probe(self, _arguments: dict[str, Any], _progress: OnProgress) -> dict[str, Any]:
        # Made here and not at the start, so that why it cannot be made is an answer.
        self._backend = registry.create(self._backend_name)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self._backend.probe()).items()}

    def _load(self, arguments: dict[str, Any], progress: OnProgress) -> dict[str, Any]:
        if self._backend is None:
            raise BackendError("backend-missing", "the backend was not probed")
        key, began = str(arguments["key"]), time.monotonic()
        if key not in self._models:
            options = LoadOptions(
                cache=self._cache,
                key=key,
                precision=str(arguments["precision"]),
                threads=self._threads,
                progress=progress,
            )
            self._models[key] = self._backend.load(Path(arguments["folder"]), options)
        model = self._models[key]
        return {
            "task": model.task,
            "precision": model.precision,
            "memory_bytes": model.memory_bytes,
            "details": model.details,
            "weights": weights_of(Path(arguments["folder"])),
            "load_s": time.monotonic() - began,
        }

    def _unload(self, arguments: dict[str, Any], _progress: OnProgress) -> bool:
        model = self._models.pop(arguments["key"], None)
        if model is not None:
            model.close()
        return model is not None

    def _measure(self, arguments: dict[str, Any], _progress: OnProgress) -> dict[str, Any]:
        budget_s = float(arguments.get("seconds", BUDGET_S))
        return asdict(measure(self._model(arguments["key"]), budget_s=budget_s, is_awaited=self._is_awaited))

    def _model(self, key: str) -> LoadedModel:
        model = self._models.get(key)
        if model is None:
            raise AccelError(ErrorCode.MODEL_NOT_HERE, "the model is not loaded in this worker")
        return model


class WorkerJob:
    """A job of one of the models."""

    def __init__(self, models: WorkerModels, request: Request, payload: bytes, cancelled: Callable[[], bool]) -> None:
        self._models = models
        self._request = request
        self._payload = payload
        self._cancelled = cancelled
        self._ahead: Any = None

    def look_ahead(self) -> None:
        """Does what can be done while another job of the worker is computed; what fails is told by `run`."""
        try:
            model = self._models.for_task(self._request.model, self._request.task)
            if isinstance(model, LooksAhead):
                inputs = values.map_arrays(_unpacked(self._request, self._payload).inputs)
                self._ahead = model.look_ahead(inputs, self._request.params, RunContext(self._cancelled))
        except Exception as error:
            log.info("looking ahead failed: %r", error)

    def run(self, emit: Emit) -> tuple[dict[str, Any], Any]:
        """Its report (timings in seconds, counts) and its value. Raises AccelError, BackendError."""
        model = self._models.for_task(self._request.model, self._request.task)
        resumption = _unpacked(self._request, self._payload)
        context = RunContext(self._cancelled, emit, Prefix(resumption.token_ids, resumption.characters))
        began = time.perf_counter()
        inputs = values.map_arrays(resumption.inputs) if self._ahead is None else self._ahead
        output = model.run(inputs, self._request.params, context)
        timings = {name: float(seconds) for name, seconds in output.timings.items()}
        run_s = time.perf_counter() - began
        made = figures(timings, output.counts, run_s)
        return {"timings": timings, "run_s": run_s, "counts": output.counts, "figures": made}, output.value


def _unpacked(request: Request, payload: bytes) -> Resumption:
    """The inputs. What cannot be read is the caller's mistake, not the connection's."""
    try:
        return unpack_payload(payload, request.options)
    except ProtocolError as error:
        raise AccelError(ErrorCode.BAD_INPUT, error.message) from None

"""The client: jobs and control operations at the node of this machine. One socket and one reader thread.

with Client() as client:
    vectors = client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])        # float32 [2, d]
    job = client.submit("all-minilm-l6-v2", "feature-extraction", ["a cat"])
    job.result(timeout=30), job.report["node_name"]
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from ..protocols import values
from ..protocols.errors import AccelError, ErrorCode, JobError, ProtocolError
from ..protocols.inference_session import (
    Answer,
    FailedReceived,
    ProgressReceived,
    RefusedReceived,
    ResultReceived,
    Session,
)
from .client_requests import (
    CALL_TIMEOUT_S,
    GRACE_S,
    embedding_inputs,
    error_of,
    make_request,
    not_running,
    socket_of,
    value_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, str], None]

_READ_SIZE: Final = 1 << 20
_CONNECT_TIMEOUT_S: Final = 5.0


class Job:
    """One request on its way. Its methods may be called from any thread.

    Attributes:
        job_id: 32 hexadecimal digits that name the job everywhere.
    """

    def __init__(self, job_id: bytes, on_progress: OnProgress | None = None) -> None:
        self.job_id = job_id.hex()
        self._on_progress = on_progress
        self._ended = threading.Event()
        self._value: Any = None
        self._report: dict[str, Any] = {}
        self._error: AccelError | None = None
        self._cancel: Callable[[], None] = lambda: None

    def result(self, timeout: float | None = None) -> Any:
        """The value. Raises JobError, or TimeoutError after `timeout` seconds, while the job goes on."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"job {self.job_id} has not ended within {timeout} s; it goes on")
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Stops the job wherever it computes; `result` then raises JobError cancelled."""
        if self._end(JobError(ErrorCode.CANCELLED, "the job was cancelled")):
            self._cancel()

    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def report(self) -> dict[str, Any]:
        """Who computed it, on what, how long it took, which candidates there were; empty until the result is there."""
        return self._report

    def _take(self, event: Answer) -> None:
        match event:
            case ResultReceived(_, report, payload):
                self._report = report
                try:
                    self._value = value_of(payload)
                except ProtocolError as error:
                    self._error = JobError(error.code, error.message)
                self._ended.set()
            case FailedReceived() | RefusedReceived():
                self._end(error_of(event))
            case ProgressReceived(_, state, done, total, note) if self._on_progress is not None:
                self._on_progress(state, done, total, note)

    def _end(self, error: AccelError) -> bool:
        if self._ended.is_set():
            return False
        self._error = error
        self._ended.set()
        return True


class Client:
    """Speaks to the node of one data folder; the default one when none is given. Safe for threads.

    Raises:
        AccelError: not-running when no node answers there.
    """

    def __init__(self, data_dir: Path | str | None = None) -> None:
        self._socket = socket_of(data_dir)
        self._lock = threading.Lock()
        self._current: _Connection | None = None
        self._connection()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; jobs that are still open fail with peer-lost."""
        with self._lock:
            if self._current is not None:
                self._current.close()

    # --- jobs

    def submit(
        self,
        model: str,
        task: str,
        inputs: Any,
        *,
        timeout: float | None = None,
        on: str | None = None,
        job_id: bytes | None = None,
        on_progress: OnProgress | None = None,
        **params: Any,
    ) -> Job:
        """Sends a job on its way.

        Args:
            model: a name, a CID, or the beginning of one.
            task: as Hugging Face calls it, such as "feature-extraction".
            inputs: plain values and numpy arrays.
            timeout: seconds the job may take in all, 300 when None.
            on: a node's name or peer id, or "local", to force where it runs.
            job_id: 16 bytes, made up when None.
            on_progress: called with (state, done, total, note) from the reader's thread.

        Raises:
            AccelError: not-running, bad-input, too-large.
        """
        request, payload = make_request(model, task, inputs, params, timeout=timeout, on=on, job_id=job_id)
        job = Job(request.job_id, on_progress)
        self._connection().open(job, lambda session: session.request(request, payload))
        return job

    def embed(
        self,
        model: str,
        texts: str | list[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        timeout: float | None = None,
        on: str | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of texts: float32 [n, d] for a list of n texts, [d] for a single one.

        `pooling` ("mean", "cls", or "none" for a list of raw states [tokens, d]) and `normalize` override what the
        model's own folder says. Raises JobError.
        """
        job = self.submit(
            model,
            "feature-extraction",
            embedding_inputs(texts),
            timeout=timeout,
            on=on,
            pooling=pooling,
            normalize=normalize,
        )
        vectors: NDArray[np.float32] = _waited(job, job.result, timeout)
        return vectors

    # --- the node

    def status(self) -> dict[str, Any]:
        return dict(self._call("status"))

    def peers(self) -> list[dict[str, Any]]:
        return list(self._call("peers"))

    def models(self) -> list[dict[str, Any]]:
        return list(self._call("model.ls"))

    def model_info(self, model: str) -> dict[str, Any]:
        return dict(self._call("model.info", model=model))

    def add_model(
        self, path: Path | str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Copies a Hugging Face folder into the node's store; `cid` of the answer names it everywhere."""
        return dict(self._call("model.add", on_progress, path=str(Path(path).absolute()), name=name))

    def get_model(
        self, model: str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Fetches a model from the peers that have it."""
        return dict(self._call("model.get", on_progress, model=model, name=name))

    def remove_model(self, model: str) -> dict[str, Any]:
        return dict(self._call("model.rm", model=model))

    def config(self) -> dict[str, Any]:
        return dict(self._call("config"))

    def _call(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        job = Job(b"", on_progress)
        self._connection().open(job, lambda session: session.call(method, values.pack(arguments)))
        try:
            return _waited(job, job.result, CALL_TIMEOUT_S)
        except JobError as error:
            raise AccelError(error.code, error.message, error.hint) from None

    def _connection(self) -> _Connection:
        """The open connection; a node that was restarted is found again."""
        with self._lock:
            if self._current is None or self._current.closed:
                self._current = _Connection(self._socket)
            return self._current


def _waited(job: Job, result: Callable[[float | None], Any], timeout: float | None) -> Any:
    """Waits a little longer than the job may take; leaving early cancels it."""
    try:
        return result(None if timeout is None else timeout + GRACE_S)
    except TimeoutError:
        job.cancel()
        raise JobError(ErrorCode.DEADLINE_EXCEEDED, f"the node gave no answer within {timeout} s") from None
    except BaseException:
        job.cancel()
        raise


class _Connection:
    """One socket with its session; the reader thread hands answers to the jobs they belong to."""

    def __init__(self, path: Path) -> None:
        self._stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stream.settimeout(_CONNECT_TIMEOUT_S)
        try:
            self._stream.connect(str(path))
        except OSError:
            self._stream.close()
            raise not_running(path) from None
        self._stream.settimeout(None)
        self._session = Session(dialler=True)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self.closed = False
        self._reader = threading.Thread(target=self._read_all, name="ipfs-accel-node reader", daemon=True)
        self._reader.start()

    def open(self, job: Job, begin: Callable[[Session], int]) -> None:
        with self._lock:
            if self.closed:
                job._take(FailedReceived(0, ErrorCode.PEER_LOST, "the connection was lost", ""))
                return
            request_id = begin(self._session)
            self._jobs[request_id] = job
        job._cancel = lambda: self._forget(request_id)
        self._send_waiting()

    def close(self) -> None:
        """Ends the reader too; called from any thread but its own."""
        try:
            self._stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the node had gone already")
        self._reader.join(_CONNECT_TIMEOUT_S)

    def _forget(self, request_id: int) -> None:
        with self._lock:
            self._jobs.pop(request_id, None)
            if not self.closed:
                self._session.cancel(request_id)
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Sends what waits, in order, whichever thread comes first; a lost connection is the reader's to tell."""
        with self._sending:
            while data := self._next():
                try:
                    self._stream.sendall(data)
                except OSError:
                    return

    def _next(self) -> bytes:
        with self._lock:
            return self._session.data_to_send(1 << 18)

    def _read_all(self) -> None:
        try:
            while data := self._stream.recv(_READ_SIZE):
                with self._lock:
                    events = self._session.receive(data)
                self._hand_out(events)
                self._send_waiting()
        except (OSError, ProtocolError) as error:
            log.debug("the connection ended: %s", error)
        with self._lock:
            self.closed = True
            events = self._session.connection_lost()
        self._hand_out(events)
        self._stream.close()

    def _hand_out(self, events: list[Any]) -> None:
        for event in events:
            terminal = isinstance(event, (ResultReceived, FailedReceived, RefusedReceived))
            job = self._jobs.pop(event.request_id, None) if terminal else self._jobs.get(event.request_id)
            if job is not None:
                job._take(event)

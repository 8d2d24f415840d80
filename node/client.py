"""The client: jobs and control operations at the node of this machine, or at another one's over TLS. One connection
and one reader thread.

with Client() as client:
    vectors = client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])        # float32 [2, d]
    job = client.submit("all-minilm-l6-v2", "feature-extraction", ["a cat"])
    job.result(timeout=30), job.report["node_name"]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..protocols import values
from ..protocols.errors import ErrorCode, JobError
from ..protocols.inference_session import Session
from .client_connection import Connection, connect
from .client_jobs import Job, OpenRequest
from .client_requests import (
    DEFAULT_TIMEOUT_S,
    QUESTION_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    OnProgress,
    as_call_error,
    checked_timeout,
    embedding_inputs,
    make_request,
    node_lost,
    places_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Client", "Job"]


class Client:
    """Speaks to the node of one data folder; the default one when none is given. Safe for threads.

    When the node is restarted, what was open fails with peer-lost and the next call connects again.

    Args:
        data_dir: the folder the node was started with; with a token, HOST:PORT of a node on another machine.
        timeout: seconds a job may take when it does not say otherwise.
        token: what `ipfs-accel-node client-token` prints on that machine.

    Raises:
        AccelError: not-running when no node answers there; over TLS wrong-client-token, wrong-certificate, bad-token.
    """

    def __init__(
        self, data_dir: Path | str | None = None, timeout: float | None = None, *, token: str | None = None
    ) -> None:
        self._places = places_of(data_dir, token)
        self._timeout = checked_timeout(timeout, DEFAULT_TIMEOUT_S)
        self._lock = threading.Lock()
        self._closed = False
        self._current = Connection(connect(self._places))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; jobs that are still open fail with peer-lost."""
        with self._lock:
            self._closed = True
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
            timeout: seconds the job may take in all; the client's own, or else 300, when None.
            on: a node's name or peer id, or "local", to force where it runs.
            job_id: 16 bytes, made up when None.
            on_progress: called with (state, done, total, note) in the reader's thread, so it must not wait.

        Raises:
            AccelError: not-running, bad-input, too-large.
        """
        seconds = checked_timeout(timeout, self._timeout)
        request, payload = make_request(model, task, inputs, params, seconds=seconds, on=on, job_id=job_id)
        job = Job(request.job_id, seconds, on_progress)
        self._open(job, lambda session: session.request(request, payload))
        return job

    def embed(
        self,
        model: str,
        texts: str | Iterable[str],
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
        vectors: NDArray[np.float32] = _waited(job)
        return vectors

    # --- the node

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("status", timeout))

    def peers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(self._ask("peers", timeout))

    def models(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(self._ask("model.ls", timeout))

    def model_info(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("model.info", timeout, model=model))

    def config(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("config", timeout))

    def client_token(self, *, new: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """What clients on other machines need: token, addresses, fingerprint. A new token ends the old one."""
        return dict(self._ask("client-token", timeout, new=new))

    def add_model(
        self, path: Path | str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Copies a Hugging Face folder into the node's store; `cid` of the answer names it everywhere."""
        return dict(self._operate("model.add", on_progress, path=str(Path(path).absolute()), name=name))

    def get_model(
        self, model: str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Fetches a model from the peers that have it."""
        return dict(self._operate("model.get", on_progress, model=model, name=name))

    def remove_model(self, model: str) -> dict[str, Any]:
        return dict(self._operate("model.rm", model=model))

    def _ask(self, method: str, timeout: float | None, /, **arguments: Any) -> Any:
        """A question about the node, which it answers at once or not at all."""
        return self._call(method, arguments, OpenRequest(checked_timeout(timeout, QUESTION_TIMEOUT_S)))

    def _operate(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        """An operation of any length, as long as it is not silent."""
        return self._call(method, arguments, OpenRequest(SILENCE_TIMEOUT_S, on_progress, renewed=True))

    def _call(self, method: str, arguments: dict[str, Any], request: OpenRequest) -> Any:
        packed = values.pack(arguments)
        self._open(request, lambda session: session.call(method, packed))
        try:
            return _waited(request)
        except JobError as error:
            raise as_call_error(error) from None

    def _open(self, request: OpenRequest, begin: Callable[[Session], int]) -> None:
        """A connection that had ended before anything was sent is made again once."""
        for _ in range(2):
            if self._connection().open(request, begin):
                return
        request.fail(node_lost())

    def _connection(self) -> Connection:
        """The open connection; a node that was restarted is found again."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this client was closed")
            if self._current.closed:
                self._current = Connection(connect(self._places))
            return self._current


def _waited(request: OpenRequest) -> Any:
    """Whoever stops waiting, for whatever reason, cancels the request."""
    try:
        return request.wait()
    except BaseException:
        request.leave(JobError(ErrorCode.CANCELLED, "its caller stopped waiting"))
        raise

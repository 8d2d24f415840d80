"""The client: jobs and control operations at the node of this machine, or at another one's over TLS. One connection
and one reader thread.

with Client() as client:
    vectors = client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])        # float32 [2, d]
    job = client.submit("all-minilm-l6-v2", "feature-extraction", ["a cat"])
    job.result(timeout=30), job.report["node_name"]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from ..protocols import values
from ..protocols.errors import ErrorCode, JobError
from ..protocols.inference_session import Session
from .client_connection import Connection, connect
from .client_jobs import Job, OpenRequest
from .client_map import map_inputs
from .client_models import ClientModels
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
from .client_stream import TextStream
from .client_tasks import ClientTasks
from .client_text import Asked, Generation, Prompt, TextOptions, ask
from .map_window import Delivery, OnError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Client", "Generation", "Job", "TextStream"]


AnyJob = TypeVar("AnyJob", bound=Job)


class Client(ClientTasks, ClientModels):
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
        job_id: bytes | str | None = None,
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
            job_id: 16 bytes, or `Job.job_id` to ask for the same job again; made up when None.
            on_progress: called with (state, done, total, note) in the reader's thread, so it must not wait.
            params: the task's own; and `precision`, such as "f32", to have it run in that alone.

        Raises:
            AccelError: not-running, bad-input, too-large.
        """
        seconds = checked_timeout(timeout, self._timeout)
        request, payload = make_request(model, task, inputs, params, seconds=seconds, on=on, job_id=job_id)
        return self._send(Job(request.job_id, seconds, on_progress), Asked(request, payload, seconds))

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

    @overload
    def generate(
        self, model: str, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[TextOptions]
    ) -> Generation: ...

    @overload
    def generate(
        self, model: str, prompt: Prompt, *, stream: Literal[True], **options: Unpack[TextOptions]
    ) -> TextStream: ...

    @overload
    def generate(
        self, model: str, prompt: Prompt, *, stream: bool, **options: Unpack[TextOptions]
    ) -> Generation | TextStream: ...

    def generate(
        self, model: str, prompt: Prompt, *, stream: bool = False, **options: Unpack[TextOptions]
    ) -> Generation | TextStream:
        """Text that a model writes; it survives the node that computes it.

        Args:
            prompt: a text to go on from, or messages `[{"role": "user", "content": "…"}]` to answer; for a model that
                sees, the content is parts `[{"type": "image", "image": bytes}, {"type": "text", "text": "…"}]`.
            stream: give a `TextStream` to read from while it is written, instead of waiting for the whole.
            options: see `TextOptions`: max_new_tokens, temperature, top_p, top_k, seed, stop, timeout, …

        Raises:
            JobError: why there is no text.
            AccelError: not-running, bad-input, too-large.
        """
        asked = ask(model, prompt, options, default_timeout=self._timeout, stream=stream)
        if stream:
            return self._send(TextStream(asked, options.get("on_progress")), asked)
        job = self._send(Job(asked.request.job_id, asked.seconds, options.get("on_progress")), asked)
        return Generation.of(_waited(job), job.report)

    def resume_stream(self, stream: TextStream, *, on_progress: OnProgress | None = None) -> TextStream:
        """Asks again for a text whose node went away: the same job, which goes on after the tokens that are here.

        It gives what was not read of `stream` first; `stream` ends, if it had not.
        """
        stream.cancel()
        rest = TextStream(stream.asked, on_progress, stream)
        return self._send(rest, rest.asked)

    def _send(self, job: AnyJob, asked: Asked) -> AnyJob:
        self._open(job, lambda session: session.request(asked.request, asked.payload))
        return job

    def map(
        self,
        model: str,
        inputs: Iterable[Any],
        task: str | None = None,
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        on: str | None = None,
        **params: Any,
    ) -> Generator[Any, None, None]:
        """A job for each input, several at once all over the cluster; gives their values one after the other.

        Inputs are taken, in the thread that iterates, as the jobs advance, so they may be endless. Leaving early
        cancels what is open: when the generator is closed or nobody refers to it any more.

        Args:
            task: the model's own when None.
            concurrency: jobs at once, at most 512; twice the backends that run the model, at most 64, when None.
            ordered: values in the order of the inputs; when false, pairs (index, value) as they come.
            on_error: "raise" an InputError, or "return" it in the place of the value; its `index` is the input's.
            on_progress: called with ("running", done, inputs in all or 0, note) before each value.
            timeout: seconds that each job may take, from when it is sent.

        Raises:
            InputError: a JobError that knows the index of its input.
            AccelError: not-running, bad-input, unknown-model, unsupported-task.
        """
        delivery = Delivery(inputs, ordered=ordered, on_error=on_error, on_progress=on_progress)
        return map_inputs(
            self, model, inputs, task, delivery,
            concurrency=concurrency, ordered=ordered, timeout=timeout, on=on, params=params,
        )  # fmt: skip

    # --- the node

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("status", timeout))

    def peers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(self._ask("peers", timeout))

    def config(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("config", timeout))

    def client_token(self, *, new: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """What clients on other machines need: token, addresses, fingerprint. A new token ends the old one."""
        return dict(self._ask("client-token", timeout, new=new))

    def pause(self, *, wait_s: float | None = None, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """The node computes no new jobs until `resume`; with `wait_s`, returns when nothing runs there any more.

        A restarted node is not paused. Raises AccelError deadline-exceeded after `wait_s`; it stays paused then.
        """
        return dict(self._operate("pause", on_progress, wait_s=wait_s))

    def resume(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("resume", timeout))

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

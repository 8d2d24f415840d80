"""The same client for asyncio and trio, on anyio. Cancelling the task that waits for a job cancels the job.

async with AsyncClient() as client:
    vectors = await client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import SocketStream

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
    DEFAULT_TIMEOUT_S,
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

OnProgress = Callable[[str, int, int, str], None]

_READ_SIZE: Final = 1 << 18


@dataclass(frozen=True)
class Completed:
    """A job's value, and the report of who computed it and how."""

    value: Any
    report: dict[str, Any]


@dataclass(eq=False)
class _Waiting:
    on_progress: OnProgress | None
    ended: anyio.Event = field(default_factory=anyio.Event)
    answer: Answer | None = None


class AsyncClient:
    """Use it as `async with AsyncClient() as client`. Raises AccelError not-running when no node answers."""

    def __init__(self, data_dir: Path | str | None = None) -> None:
        self._path = socket_of(data_dir)
        self._session = Session(dialler=True)
        self._waiting: dict[int, _Waiting] = {}
        self._stack = AsyncExitStack()
        self._stream: SocketStream | None = None
        self._to_write = anyio.Event()

    async def __aenter__(self) -> AsyncClient:
        try:
            self._stream = await anyio.connect_unix(str(self._path))
        except OSError:
            raise not_running(self._path) from None
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self._read_all, self._stream)
        tasks.start_soon(self._write_all, self._stream)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stream, self._stream = self._stream, None
        await self._stack.__aexit__(None, None, None)
        if stream is not None:
            with anyio.CancelScope(shield=True):
                await stream.aclose()

    async def run(
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
    ) -> Completed:
        """Runs a job to its end; the arguments are those of `Client.submit`. Raises JobError, AccelError."""
        request, payload = make_request(model, task, inputs, params, timeout=timeout, on=on, job_id=job_id)
        seconds = (DEFAULT_TIMEOUT_S if timeout is None else timeout) + GRACE_S
        answer = await self._exchange(lambda: self._session.request(request, payload), on_progress, seconds)
        return Completed(value_of(answer.payload), answer.report)

    async def embed(
        self,
        model: str,
        texts: str | list[str],
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        timeout: float | None = None,
        on: str | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of texts: float32 [n, d] for a list of n texts, [d] for a single one. Raises JobError."""
        completed = await self.run(
            model,
            "feature-extraction",
            embedding_inputs(texts),
            timeout=timeout,
            on=on,
            pooling=pooling,
            normalize=normalize,
        )
        vectors: NDArray[np.float32] = completed.value
        return vectors

    async def status(self) -> dict[str, Any]:
        return dict(await self._call("status"))

    async def peers(self) -> list[dict[str, Any]]:
        return list(await self._call("peers"))

    async def models(self) -> list[dict[str, Any]]:
        return list(await self._call("model.ls"))

    async def add_model(
        self, path: Path | str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        absolute = str(await anyio.Path(path).absolute())
        return dict(await self._call("model.add", on_progress, path=absolute, name=name))

    async def get_model(
        self, model: str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        return dict(await self._call("model.get", on_progress, model=model, name=name))

    async def remove_model(self, model: str) -> dict[str, Any]:
        return dict(await self._call("model.rm", model=model))

    async def _call(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        packed = values.pack(arguments)
        try:
            answer = await self._exchange(lambda: self._session.call(method, packed), on_progress, CALL_TIMEOUT_S)
        except JobError as error:
            raise AccelError(error.code, error.message, error.hint) from None
        return value_of(answer.payload)

    async def _exchange(
        self, begin: Callable[[], int], on_progress: OnProgress | None, seconds: float
    ) -> ResultReceived:
        if self._stream is None:
            raise not_running(self._path)
        request_id = begin()
        waiting = self._waiting[request_id] = _Waiting(on_progress)
        self._to_write.set()
        try:
            with anyio.move_on_after(seconds):
                await waiting.ended.wait()
        finally:
            if self._waiting.pop(request_id, None) is not None and waiting.answer is None:
                self._session.cancel(request_id)
                self._to_write.set()
        match waiting.answer:
            case ResultReceived() as result:
                return result
            case FailedReceived() | RefusedReceived() as failed:
                raise error_of(failed)
            case _:
                raise JobError(ErrorCode.DEADLINE_EXCEEDED, f"the node gave no answer within {seconds:g} s")

    async def _read_all(self, stream: SocketStream) -> None:
        try:
            while True:
                for event in self._session.receive(await stream.receive(_READ_SIZE)):
                    self._hand_out(event)
                self._to_write.set()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, ProtocolError):
            self._stream = None
            for event in self._session.connection_lost():
                self._hand_out(event)

    async def _write_all(self, stream: SocketStream) -> None:
        try:
            while True:
                await self._to_write.wait()
                self._to_write = anyio.Event()
                while data := self._session.data_to_send():
                    await stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            await anyio.sleep(math.inf)  # the reader tells everyone

    def _hand_out(self, event: Any) -> None:
        waiting = self._waiting.get(event.request_id)
        if waiting is None:
            return
        if isinstance(event, ProgressReceived):
            if waiting.on_progress is not None:
                waiting.on_progress(event.state, event.done, event.total, event.note)
        elif isinstance(event, (ResultReceived, FailedReceived, RefusedReceived)):
            waiting.answer = event
            waiting.ended.set()

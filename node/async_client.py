"""The same client for asyncio and trio, on anyio. Cancelling the task that waits for a job cancels the job.

async with AsyncClient() as client:
    vectors = await client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

import anyio
from anyio.abc import TaskGroup

from ..protocols import values
from ..protocols.errors import JobError, ProtocolError
from ..protocols.inference_session import ResultReceived, Session
from .async_connection import AsyncConnection, OnChunk, connect
from .async_jobs import AsyncJob, Completed
from .async_map import AsyncMap, Inputs, prepared
from .async_stream import AsyncTextStream
from .client_requests import (
    DEFAULT_TIMEOUT_S,
    QUESTION_TIMEOUT_S,
    SILENCE_TIMEOUT_S,
    OnProgress,
    as_call_error,
    checked_timeout,
    embedding_inputs,
    make_request,
    places_of,
    value_of,
)
from .client_text import Asked, Generation, Prompt, TextOptions, ask
from .map_window import Delivery, OnError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


AnyJob = TypeVar("AnyJob", bound=AsyncJob)


class AsyncClient:
    """Use it as `async with AsyncClient() as client`, from any number of tasks inside.

    When the node is restarted, what was open fails with peer-lost and the next call connects again. Entering raises
    AccelError not-running when no node answers. `data_dir`, `timeout` and `token` are those of `Client`.
    """

    def __init__(
        self, data_dir: Path | str | None = None, timeout: float | None = None, *, token: str | None = None
    ) -> None:
        self._places = places_of(data_dir, token)
        self._timeout = checked_timeout(timeout, DEFAULT_TIMEOUT_S)
        self._stack = AsyncExitStack()
        self._tasks: TaskGroup | None = None
        self._current: AsyncConnection | None = None
        self._connecting = anyio.Lock()

    async def __aenter__(self) -> AsyncClient:
        stream = await connect(self._places)
        self._current = AsyncConnection(stream)
        self._tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._tasks.start_soon(self._current.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the connection; jobs of tasks outside that are still open fail with peer-lost."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()
            self._tasks = None
            await self._stack.aclose()

    async def run(
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
    ) -> Completed:
        """Runs a job to its end; the arguments are those of `Client.submit`. Raises JobError, AccelError."""
        seconds = checked_timeout(timeout, self._timeout)
        request, payload = make_request(model, task, inputs, params, seconds=seconds, on=on, job_id=job_id)
        return await self._complete(Asked(request, payload, seconds), on_progress)

    async def submit(
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
    ) -> AsyncJob:
        """Sends a job on its way; the arguments are those of `Client.submit`. Raises AccelError for bad ones."""
        seconds = checked_timeout(timeout, self._timeout)
        request, payload = make_request(model, task, inputs, params, seconds=seconds, on=on, job_id=job_id)
        return await self._begin(AsyncJob(request.job_id), Asked(request, payload, seconds), on_progress)

    async def embed(
        self,
        model: str,
        texts: str | Iterable[str],
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

    @overload
    async def generate(
        self, model: str, prompt: Prompt, *, stream: Literal[False] = False, **options: Unpack[TextOptions]
    ) -> Generation: ...

    @overload
    async def generate(
        self, model: str, prompt: Prompt, *, stream: Literal[True], **options: Unpack[TextOptions]
    ) -> AsyncTextStream: ...

    @overload
    async def generate(
        self, model: str, prompt: Prompt, *, stream: bool, **options: Unpack[TextOptions]
    ) -> Generation | AsyncTextStream: ...

    async def generate(
        self, model: str, prompt: Prompt, *, stream: bool = False, **options: Unpack[TextOptions]
    ) -> Generation | AsyncTextStream:
        """Text that a model writes; it survives the node that computes it. As `Client.generate`."""
        asked = ask(model, prompt, options, default_timeout=self._timeout, stream=stream)
        on_progress = options.get("on_progress")
        if stream:
            text = AsyncTextStream(asked)
            return await self._begin(text, asked, on_progress, text.take)
        completed = await self._complete(asked, on_progress)
        return Generation.of(completed.value, completed.report)

    async def resume_stream(self, stream: AsyncTextStream, *, on_progress: OnProgress | None = None) -> AsyncTextStream:
        """Asks again for a text whose node went away. As `Client.resume_stream`."""
        stream.cancel()
        rest = AsyncTextStream(stream.asked, stream)
        return await self._begin(rest, rest.asked, on_progress, rest.take)

    def map(
        self,
        model: str,
        inputs: Inputs,
        task: str | None = None,
        *,
        concurrency: int | None = None,
        ordered: bool = True,
        on_error: OnError = "raise",
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
        on: str | None = None,
        **params: Any,
    ) -> AsyncMap:
        """A job for each input: `async for value in client.map(…)`, with the arguments and errors of `Client.map`.

        `inputs` may be asynchronous too; those that are not must not block. The jobs are tasks of this client.
        `async with client.map(…) as values` waits, when it is left early, until they have ended.
        """
        delivery = Delivery(inputs, ordered=ordered, on_error=on_error, on_progress=on_progress)
        prepare = prepared(self, model, task, concurrency=concurrency, timeout=timeout, on=on, params=params)
        return AsyncMap(self._start, prepare, inputs, delivery, ordered=ordered)

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(await self._ask("status", timeout))

    async def peers(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(await self._ask("peers", timeout))

    async def models(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(await self._ask("model.ls", timeout))

    async def model_info(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(await self._ask("model.info", timeout, model=model))

    async def config(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(await self._ask("config", timeout))

    async def client_token(self, *, new: bool = False, timeout: float | None = None) -> dict[str, Any]:
        """What clients on other machines need: token, addresses, fingerprint. A new token ends the old one."""
        return dict(await self._ask("client-token", timeout, new=new))

    async def add_model(
        self,
        source: Path | str,
        name: str | None = None,
        *,
        anyway: bool = False,
        convert: bool = False,
        license_name: str = "",
        gated: bool = False,
        cid_profile: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """A folder, or `hf:owner/name[@revision]`; the rest as for `Client`."""
        from .model_source import needs_room, opened_source

        report = on_progress or (lambda *_: None)
        data_dir = (await self.status())["data_dir"] if needs_room(source, convert=convert) else ""
        downloads = Path(data_dir) / "downloads"
        opening = opened_source(source, downloads, name, convert=convert, on_progress=report)
        found = await anyio.to_thread.run_sync(opening.__enter__)
        try:
            given = found.with_notes(license_name, gated=gated).as_arguments(cid_profile)
            added = dict(await self._operate("model.add", on_progress, anyway=anyway, **given))
        except BaseException as error:
            opening.__exit__(type(error), error, error.__traceback__)
            raise
        await anyio.to_thread.run_sync(opening.__exit__, None, None, None)
        return added

    async def get_model(
        self, model: str, name: str | None = None, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        return dict(await self._operate("model.get", on_progress, model=model, name=name))

    async def remove_model(self, model: str) -> dict[str, Any]:
        return dict(await self._operate("model.rm", model=model))

    async def pins(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(await self._ask("pin.ls", timeout))

    async def pin_model(self, model: str, *, on_progress: OnProgress | None = None) -> dict[str, Any]:
        return dict(await self._operate("pin.add", on_progress, model=model))

    async def unpin_model(self, model: str) -> dict[str, Any]:
        return dict(await self._operate("pin.rm", model=model))

    async def repo_stat(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Bytes by what takes them: models, pinned, partial, derived; the limit; what is free on the disk."""
        return dict(await self._ask("repo.stat", timeout))

    async def repo_gc(self, *, unpinned: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Removes what nothing needs and, with `unpinned`, every model that is neither pinned nor in use."""
        return dict(await self._operate("repo.gc", unpinned=unpinned, dry_run=dry_run))

    async def repo_verify(
        self, model: str | None = None, *, repair: bool = False, on_progress: OnProgress | None = None
    ) -> list[dict[str, Any]]:
        """Reads a model, or all, again; `damaged` files of each. `repair` fetches those from peers."""
        return list(await self._operate("repo.verify", on_progress, model=model, repair=repair))

    async def pause(self, *, wait_s: float | None = None, on_progress: OnProgress | None = None) -> dict[str, Any]:
        return dict(await self._operate("pause", on_progress, wait_s=wait_s))

    async def resume(self, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(await self._ask("resume", timeout))

    async def _begin(
        self, job: AnyJob, asked: Asked, on_progress: OnProgress | None, on_chunk: OnChunk | None = None
    ) -> AnyJob:
        """Lets the job go on beside the task that submits it."""
        await self._connection()
        self._start(partial(job.run, partial(self._complete, asked, on_progress, on_chunk)))
        return job

    async def _complete(
        self, asked: Asked, on_progress: OnProgress | None, on_chunk: OnChunk | None = None
    ) -> Completed:
        connection = await self._connection()
        answer = await connection.exchange(
            lambda session: session.request(asked.request, asked.payload),
            on_progress,
            asked.seconds,
            renewed=False,
            on_chunk=on_chunk,
        )
        return Completed(_unpacked(answer), answer.report)

    async def _ask(self, method: str, timeout: float | None, /, **arguments: Any) -> Any:
        """A question about the node, which it answers at once or not at all."""
        return await self._call(method, arguments, None, checked_timeout(timeout, QUESTION_TIMEOUT_S), renewed=False)

    async def _operate(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        """An operation of any length, as long as it is not silent."""
        return await self._call(method, arguments, on_progress, SILENCE_TIMEOUT_S, renewed=True)

    async def _call(
        self, method: str, arguments: dict[str, Any], on_progress: OnProgress | None, seconds: float, *, renewed: bool
    ) -> Any:
        packed = values.pack(arguments)
        begin: Callable[[Session], int] = lambda session: session.call(method, packed)  # noqa: E731
        connection = await self._connection()
        try:
            return _unpacked(await connection.exchange(begin, on_progress, seconds, renewed=renewed))
        except JobError as error:
            raise as_call_error(error) from None

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As a task of this client, which ends with it."""
        if self._tasks is None:
            raise RuntimeError("this client is not open: async with AsyncClient() as client")
        self._tasks.start_soon(work)

    async def _connection(self) -> AsyncConnection:
        """The open connection; a node that was restarted is found again."""
        if self._current is None:
            raise RuntimeError("this client was not entered: async with AsyncClient() as client")
        async with self._connecting:
            if self._tasks is None:
                raise RuntimeError("this client was closed")
            if self._current.closed:
                stream = await connect(self._places)
                self._current = AsyncConnection(stream)
                self._tasks.start_soon(self._current.run)
            return self._current


def _unpacked(answer: ResultReceived) -> Any:
    try:
        return value_of(answer.payload)
    except ProtocolError as error:
        raise JobError(error.code, error.message) from None

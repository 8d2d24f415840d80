"""`AsyncClient.map`: many inputs as many jobs, some of them at once, in the task group of their client."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from ..protocols.errors import AccelError
from .async_jobs import Completed
from .client_requests import checked_timeout, client_closed
from .map_window import (
    Delivery,
    Outcome,
    Window,
    checked_concurrency,
    checked_params,
    concerns_one_input,
    own_task,
    usual_concurrency,
)

if TYPE_CHECKING:
    from .async_client import AsyncClient

Inputs = Iterable[Any] | AsyncIterable[Any]
RunJob = Callable[[Any], Awaitable[Completed]]
#: Learns what it needs of the model; gives how many jobs run at once, and how to run one.
Prepare = Callable[[], Awaitable[tuple[int, RunJob]]]
#: Starts a function as a task of the client.
Start = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


def prepared(
    client: AsyncClient,
    model: str,
    task: str | None,
    *,
    concurrency: int | None,
    timeout: float | None,
    on: str | None,
    params: Mapping[str, Any],
) -> Prepare:
    """Wrong arguments raise here, before anything is sent."""
    checked_timeout(timeout, 0)
    checked_concurrency(concurrency)
    known = checked_params(params)

    async def prepare() -> tuple[int, RunJob]:
        chosen, at_once = task, concurrency
        if chosen is None or at_once is None:
            info = await client.model_info(model)
            chosen, at_once = chosen or own_task(info, model), at_once or usual_concurrency(info)
        return at_once, lambda each: client.run(model, chosen, each, timeout=timeout, on=on, **known)

    return prepare


class AsyncMap(AsyncIterator[Any]):
    """The values, one after the other. Used as `async with`, it is left when its jobs have ended.

    Whoever merely breaks out of the loop cancels them too, as soon as nobody refers to this any more; so does
    cancelling a task that waits for a value.
    """

    def __init__(self, start: Start, prepare: Prepare, inputs: Inputs, delivery: Delivery, *, ordered: bool) -> None:
        self._left = True
        self._start = start
        self._flight = _Flight(prepare, inputs, ordered=ordered)
        self._delivery = delivery
        self._left = False

    def __aiter__(self) -> AsyncMap:
        return self

    async def __anext__(self) -> Any:
        if self._left:
            raise StopAsyncIteration
        try:
            if not self._flight.started:
                self._start(self._flight.run)
                self._flight.started = True
            return self._delivery.give(await self._flight.next())
        except BaseException:
            self._leave()
            raise

    async def __aenter__(self) -> AsyncMap:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancels the jobs that are open, and waits until they have ended."""
        self._leave()
        if self._flight.started:
            with anyio.CancelScope(shield=True):
                await self._flight.ended.wait()

    def __del__(self) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._flight.cancel()


class _Flight:
    """One task that takes inputs, and one for each job. It knows nothing of the iterator, which may be dropped."""

    def __init__(self, prepare: Prepare, inputs: Inputs, *, ordered: bool) -> None:
        self.started = False
        self.ended = anyio.Event()
        self._prepare = prepare
        self._inputs = inputs
        self._ordered = ordered
        self._window = Window(1, ordered=ordered)
        self._scope = anyio.CancelScope()
        self._failure: Exception | None = client_closed()
        self._came = anyio.Event()
        self._freed = anyio.Event()

    def cancel(self) -> None:
        if self.started and not self.ended.is_set():
            self._scope.cancel()

    async def next(self) -> Outcome:
        """Raises StopAsyncIteration at the end, or what ended it before."""
        while (outcome := self._window.next()) is None:
            if self.ended.is_set():
                raise self._failure or StopAsyncIteration
            self._came = anyio.Event()
            await self._came.wait()
        self._freed.set()
        return outcome

    async def run(self) -> None:
        try:
            with self._scope:
                at_once, run_job = await self._prepare()
                self._window = Window(at_once, ordered=self._ordered)
                await self._run_all(run_job)
        except AccelError as error:
            self._failure = error
        finally:
            self.ended.set()
            self._came.set()

    async def _run_all(self, run_job: RunJob) -> None:
        """What fails in the caller's own inputs is raised after the results of those before."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            try:
                await self._take_inputs(tasks, run_job)
            except Exception as error:
                failure = error
        self._failure = failure

    async def _take_inputs(self, tasks: TaskGroup, run_job: RunJob) -> None:
        if isinstance(self._inputs, AsyncIterable):
            async for each in self._inputs:
                await self._begin(tasks, run_job, each)
        else:
            for each in self._inputs:
                await self._begin(tasks, run_job, each)

    async def _begin(self, tasks: TaskGroup, run_job: RunJob, each: Any) -> None:
        tasks.start_soon(self._run_one, run_job, self._window.begin(), each)
        while not self._window.has_room:
            self._freed = anyio.Event()
            await self._freed.wait()

    async def _run_one(self, run_job: RunJob, index: int, each: Any) -> None:
        try:
            completed = await run_job(each)
        except AccelError as error:
            if not concerns_one_input(error):
                self._failure = error
                self._scope.cancel()
                return
            outcome = Outcome(index, error=error)
        else:
            outcome = Outcome(index, completed.value, completed.report)
        self._window.end(outcome)
        self._came.set()
        self._freed.set()

"""`Client.map`: many inputs as many jobs, some of them at once, in the thread of who iterates."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocols.errors import AccelError
from .client_jobs import Job
from .client_requests import checked_timeout
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
    from .client import Client

T = TypeVar("T")
#: Sends one input on its way; None when there is nothing to wait for.
Submit = Callable[[T], Job | None]


def map_inputs(
    client: Client,
    model: str,
    inputs: Iterable[Any],
    task: str | None,
    delivery: Delivery,
    *,
    concurrency: int | None,
    ordered: bool,
    timeout: float | None,
    on: str | None,
    params: Mapping[str, Any],
) -> Generator[Any, None, None]:
    """What `Client.map` gives. Wrong arguments raise here, before anything is sent."""
    checked_timeout(timeout, 0)
    at_once, known = checked_concurrency(concurrency), checked_params(params)
    waiting = iter(inputs)
    if task is None or at_once is None:
        info = client.model_info(model)
        task, at_once = task or own_task(info, model), at_once or usual_concurrency(info)

    def submit(each: Any) -> Job:
        return client.submit(model, task, each, timeout=timeout, on=on, **known)

    return _delivered(outcomes(submit, waiting, Window(at_once, ordered=ordered)), delivery)


def _delivered(found: Generator[Outcome, None, None], delivery: Delivery) -> Generator[Any, None, None]:
    with closing(found):
        for outcome in found:
            yield delivery.give(outcome)


def outcomes(submit: Submit[T], inputs: Iterator[T], window: Window) -> Generator[Outcome, None, None]:
    """What becomes of each input. Closing the generator cancels the jobs that are open.

    An input that `submit` refuses as such has that error as its outcome. Raises AccelError for what befalls all, such
    as not-running.
    """
    flight = _Flight(window)
    more = True
    try:
        while True:
            if more and window.has_room:
                more = flight.begin_next(submit, inputs)
            elif not window.has_next:
                if not window.open:
                    return
                flight.wait()
            flight.collect()
            if (outcome := window.next()) is not None:
                yield outcome
    finally:
        flight.cancel()


class _Flight:
    """The jobs that are open. Each says by itself when it has ended."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._jobs: dict[int, Job] = {}
        self._ended: SimpleQueue[int] = SimpleQueue()

    def begin_next(self, submit: Submit[T], inputs: Iterator[T]) -> bool:
        """False when there is no more input."""
        for each in inputs:
            self._begin(submit, each)
            return True
        return False

    def _begin(self, submit: Submit[T], each: T) -> None:
        index = self._window.begin()
        try:
            job = submit(each)
        except AccelError as error:
            if not concerns_one_input(error):
                raise
            self._window.end(Outcome(index, error=error))
            return
        if job is None:
            self._window.end(Outcome(index))
            return
        self._jobs[index] = job
        job.when_done(partial(self._ended.put, index))

    def wait(self) -> None:
        """Until one has ended. All have the same time, so that of the oldest is up first."""
        oldest = next(iter(self._jobs.values()))
        with suppress(Empty):
            self._take(self._ended.get(timeout=oldest.expire()))

    def collect(self) -> None:
        """Takes those that have ended, without waiting."""
        with suppress(Empty):
            while True:
                self._take(self._ended.get_nowait())

    def _take(self, index: int) -> None:
        job = self._jobs.pop(index)
        try:
            value = job.result()
        except AccelError as error:
            self._window.end(Outcome(index, error=error))
        else:
            self._window.end(Outcome(index, value, job.report))

    def cancel(self) -> None:
        for job in self._jobs.values():
            job.cancel()

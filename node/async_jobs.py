"""A job of `AsyncClient` that goes on beside the task that submitted it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from ..protocols.errors import AccelError, ErrorCode, JobError
from .client_requests import client_closed


@dataclass(frozen=True)
class Completed:
    """A job's value, and the report of who computed it and how."""

    value: Any
    report: dict[str, Any]


class AsyncJob:
    """One job on its way; it is cancelled when its client is left.

    Attributes:
        job_id: 32 hexadecimal digits that name the job everywhere.
    """

    def __init__(self, job_id: bytes) -> None:
        self.job_id = job_id.hex()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._outcome: Completed | AccelError = client_closed()

    async def result(self, timeout: float | None = None) -> Any:
        """The value. Raises JobError, or TimeoutError after `timeout` seconds, while the job goes on."""
        with anyio.fail_after(timeout):
            await self._ended.wait()
        if isinstance(self._outcome, Completed):
            return self._outcome.value
        raise self._outcome

    def cancel(self) -> None:
        """Stops the job wherever it computes; `result` then raises JobError cancelled."""
        self._give_up(JobError(ErrorCode.CANCELLED, "the job was cancelled"))

    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def report(self) -> dict[str, Any]:
        """Who computed it, on what, how long it took, which candidates there were; empty until the result is there."""
        return self._outcome.report if isinstance(self._outcome, Completed) else {}

    def _give_up(self, error: AccelError) -> None:
        if not self.done():
            self._outcome = error
            self._scope.cancel()

    def _ended_with(self, outcome: Completed | AccelError) -> None:
        """For what has to be done before anybody hears of the end."""

    async def run(self, work: Callable[[], Awaitable[Completed]]) -> None:
        """The job's life, in its client's task group."""
        try:
            with self._scope:
                self._outcome = await work()
        except AccelError as error:
            self._outcome = error
        finally:
            self._ended.set()
            self._ended_with(self._outcome)

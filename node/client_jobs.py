"""Requests of `Client` on their way: each ends exactly once, and nobody waits for one without a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from ..protocols.errors import AccelError, ErrorCode, JobError, ProtocolError
from ..protocols.inference_session import Answer, FailedReceived, ProgressReceived, RefusedReceived, ResultReceived
from .client_requests import GRACE_S, OnProgress, error_of, no_answer, tell, value_of


class OpenRequest:
    """A job or a control operation. Any thread may wait for it; the reader's thread brings the answers.

    Args:
        seconds: how long it may take; when `renewed`, how long it may be silent.
    """

    def __init__(self, seconds: float, on_progress: OnProgress | None = None, *, renewed: bool = False) -> None:
        self.report: dict[str, Any] = {}
        self._seconds = seconds
        self._renewed = renewed
        self._deadline = time.monotonic() + seconds + GRACE_S
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._payload: bytes | None = None
        self._value: Any = None
        self._error: AccelError | None = None
        self._leave: Callable[[], None] = _nothing
        self._is_reader: Callable[[], bool] = _no
        self._on_end: Callable[[], None] = _nothing

    def attach(self, leave: Callable[[], None], is_reader: Callable[[], bool]) -> None:
        """`leave` tells the node that nobody waits; `is_reader` is true in the thread that must not wait."""
        self._leave, self._is_reader = leave, is_reader

    def done(self) -> bool:
        return self._ended.is_set()

    def when_done(self, call: Callable[[], None]) -> None:
        """Calls it once, in the thread that ends the request, or now when it has ended; so it must not wait."""
        with self._lock:
            if not self._ended.is_set():
                self._on_end = call
                return
        call()

    def expire(self) -> float:
        """Ends it when its deadline has passed; the seconds that are left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            self.leave(no_answer(self._seconds))
        return max(0.0, left)

    def wait(self, timeout: float | None = None) -> Any:
        """The value. Raises its error, or TimeoutError after `timeout` seconds, while the request goes on."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._ended.is_set():
            self._check_may_wait()
            now = time.monotonic()
            if now >= self._deadline:
                self.leave(no_answer(self._seconds))
            elif until is not None and now >= until:
                raise TimeoutError(f"there was no answer within {timeout:g} s; the job goes on")
            else:
                self._ended.wait((self._deadline if until is None else min(self._deadline, until)) - now)
        return self._outcome()

    def _check_may_wait(self) -> None:
        if self._is_reader():
            raise RuntimeError("a progress callback cannot wait: it runs in the thread that brings the answers")

    def leave(self, error: AccelError) -> None:
        """Ends it from this side with `error`, unless it has ended."""
        if self.fail(error):
            self._leave()

    def take(self, event: Answer) -> None:
        match event:
            case ResultReceived(_, report, payload):
                self._end(report=report, payload=payload)
            case FailedReceived() | RefusedReceived():
                self._end(error=error_of(event))
            case ProgressReceived(_, state, done, total, note):
                if self._renewed:
                    self._deadline = time.monotonic() + self._seconds + GRACE_S
                if self._on_progress is not None and not tell(self._on_progress, state, done, total, note):
                    self._on_progress = None

    def fail(self, error: AccelError) -> bool:
        """False when it has ended already."""
        return self._end(error=error)

    def _end(
        self, *, report: dict[str, Any] | None = None, payload: bytes | None = None, error: AccelError | None = None
    ) -> bool:
        with self._lock:
            if self._ended.is_set():
                return False
            self.report, self._payload, self._error = report or {}, payload, error
            self._ended.set()
        self._on_end()
        return True

    def _outcome(self) -> Any:
        """Unpacked by who asks for it, so that a large one does not hold up the reader."""
        with self._lock:
            if self._payload is not None:
                payload, self._payload = self._payload, None
                try:
                    self._value = value_of(payload)
                except ProtocolError as error:
                    self._error = JobError(error.code, error.message)
            if self._error is not None:
                raise self._error
            return self._value


class Job(OpenRequest):
    """A job that was submitted. Its methods may be called from any thread.

    Attributes:
        job_id: 32 hexadecimal digits that name the job everywhere.
        report: who computed it, on what, how long it took, which candidates there were; empty until it is done.
    """

    def __init__(self, job_id: bytes, seconds: float, on_progress: OnProgress | None = None) -> None:
        super().__init__(seconds, on_progress)
        self.job_id = job_id.hex()

    def result(self, timeout: float | None = None) -> Any:
        """The value.

        Raises:
            JobError: what became of the job instead; deadline-exceeded at its own deadline, whatever the node does.
            TimeoutError: after `timeout` seconds, while the job goes on.
        """
        return self.wait(timeout)

    def cancel(self) -> None:
        """Stops the job wherever it computes; `result` then raises JobError cancelled."""
        self.leave(JobError(ErrorCode.CANCELLED, "the job was cancelled"))


def _nothing() -> None:
    return None


def _no() -> bool:
    return False

"""What the computing thread of a worker has before it: bounded, and free of what was cancelled."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

#: Asked for by a node whose caller left: answered when the worker is free of that request.
RELEASED: Final = "released"
#: The state of the progress frame that says that an operation's turn has come.
BEGUN: Final = "begun"
#: The node hands out two jobs at a time; the rest is room for its calls.
MOST_WAITING: Final = 64


@dataclass(eq=False)
class Work:
    """One operation. `cancelled` is a flag that a running one looks at."""

    request_id: int
    run: Callable[[], Any]
    cancelled: bool = False


class WorkQueue:
    """Safe for threads. Cancelled work that has not begun is dropped at once, so nothing piles up behind a long job."""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()
        self._current: Work | None = None
        self._released: dict[int, list[Callable[[], None]]] = {}
        self._changed = threading.Condition()

    @property
    def length(self) -> int:
        return len(self._waiting) + (self._current is not None)

    @property
    def is_awaited(self) -> bool:
        """Whether something waits for what runs now to end."""
        return bool(self._waiting)

    def put(self, work: Work) -> bool:
        """False when the queue is full."""
        with self._changed:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(work)
            self._changed.notify()
            return True

    def take(self) -> Work:
        """The next work, as soon as there is some; it is current until it is `done`."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            self._current = self._waiting.popleft()
            return self._current

    def done(self, work: Work) -> None:
        with self._changed:
            self._current = None
            answers = self._released.pop(work.request_id, [])
        for answer in answers:
            answer()

    def cancel(self, request_id: int) -> None:
        """Drops the work where it waits, tells it where it runs."""
        with self._changed:
            if self._current is not None and self._current.request_id == request_id:
                self._current.cancelled = True
            for work in [each for each in self._waiting if each.request_id == request_id]:
                self._waiting.remove(work)

    def when_released(self, request_id: int, answer: Callable[[], None]) -> None:
        """Calls `answer` as soon as that work neither waits nor runs: at once where it is not here."""
        with self._changed:
            present = [*self._waiting, self._current] if self._current else [*self._waiting]
            if any(each.request_id == request_id for each in present):
                self._released.setdefault(request_id, []).append(answer)
                return
        answer()

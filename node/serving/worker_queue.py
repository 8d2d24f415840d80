"""What the computing thread of a worker has before it: bounded, and free of what was cancelled.

While one job is computed, another thread may look ahead at the next: see its images, so that its turn is shorter.
"""

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
    #: Of jobs alone: what can be done of it while another job is computed. It is called once at most.
    look_ahead: Callable[[], None] | None = None
    looked: bool = False


class WorkQueue:
    """Safe for threads. Cancelled work that has not begun is dropped at once, so nothing piles up behind a long job."""

    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()
        self._current: Work | None = None
        self._ahead: Work | None = None
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
            self._changed.notify_all()
            return True

    def take(self) -> Work:
        """The next work, as soon as there is some and nobody looks at it; it is current until it is `done`."""
        with self._changed:
            while not self._waiting or self._waiting[0] is self._ahead:
                self._changed.wait()
            self._current = self._waiting.popleft()
            self._changed.notify_all()
            return self._current

    def take_ahead(self) -> Work:
        """The job that waits first, as soon as another is computed; nobody takes it until it is `looked_at`.

        An operation on a model, such as measuring it, has the worker to itself.
        """
        with self._changed:
            while (work := self._next_job()) is None:
                self._changed.wait()
            work.looked, self._ahead = True, work
            return work

    def looked_at(self, work: Work) -> None:
        with self._changed:
            self._ahead = None
            self._changed.notify_all()
            answers = [] if work in self._waiting else self._released.pop(work.request_id, [])
        for answer in answers:
            answer()

    def done(self, work: Work) -> None:
        with self._changed:
            self._current = None
            answers = self._released.pop(work.request_id, [])
        for answer in answers:
            answer()

    def cancel(self, request_id: int) -> None:
        """Drops the work where it waits, tells it where it runs."""
        with self._changed:
            for work in self._at_work():
                if work.request_id == request_id:
                    work.cancelled = True
            for work in [each for each in self._waiting if each.request_id == request_id]:
                self._waiting.remove(work)
            self._changed.notify_all()

    def when_released(self, request_id: int, answer: Callable[[], None]) -> None:
        """Calls `answer` as soon as that work neither waits nor runs: at once where it is not here."""
        with self._changed:
            if any(each.request_id == request_id for each in (*self._waiting, *self._at_work())):
                self._released.setdefault(request_id, []).append(answer)
                return
        answer()

    def _at_work(self) -> list[Work]:
        return [work for work in (self._current, self._ahead) if work is not None]

    def _next_job(self) -> Work | None:
        first = self._waiting[0] if self._waiting else None
        busy = self._current is not None and self._current.look_ahead is not None
        return first if first is not None and busy and first.look_ahead is not None and not first.looked else None

"""The jobs that are open at this node, for showing: whose they are, where each runs, how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import trio

from .content.cid import format_cid
from .exchanges import Incoming

#: More are counted, not listed: an answer stays small however many there are.
MOST_LISTED: Final = 32


@dataclass
class _Open:
    cid: bytes
    own: bool
    since: float
    node_name: str = ""
    backend: str = ""


class RunningJobs:
    """Those that were submitted here, wherever they run, and those that peers sent here."""

    def __init__(self) -> None:
        self._open: dict[Incoming, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def listed(self, incoming: Incoming, cid: bytes, *, own: bool) -> Iterator[None]:
        """While inside, the job is among them; `own` tells a job that was submitted here from a peer's."""
        self._open[incoming] = _Open(cid, own, trio.current_time())
        try:
            yield
        finally:
            del self._open[incoming]

    def moved(self, incoming: Incoming, node_name: str, backend: str) -> None:
        """The job is now tried there."""
        if (job := self._open.get(incoming)) is not None:
            job.node_name, job.backend = node_name, backend

    def where(self, incoming: Incoming) -> str:
        """The name of the node that has the job now."""
        job = self._open.get(incoming)
        return job.node_name if job else ""

    def describe(self, name_of: Callable[[bytes], str]) -> list[dict[str, Any]]:
        """The oldest first, at most `MOST_LISTED`."""
        now = trio.current_time()
        return [
            {
                "job_id": incoming.request.job_id.hex(),
                "model": name_of(job.cid) or format_cid(job.cid),
                "task": incoming.request.task,
                "own": job.own,
                "node_name": job.node_name,
                "backend": job.backend,
                "seconds": now - job.since,
                "tokens": incoming.tokens,
            }
            for incoming, job in islice(self._open.items(), MOST_LISTED)
        ]

"""One job at its entry node: what was asked, what its caller has, what was tried, and how long is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import trio

from ..protocols.errors import AccelError
from ..protocols.inference import Request
from ..protocols.resumption import OPTION, pack_resumption
from ..protocols.work import Work
from .content.cid import format_cid
from .delivered import Delivered
from .exchanges import Incoming
from .mesh.routing import Prediction


@dataclass(eq=False)
class Job:
    """One request on its way: what was tried, what came of it, how long is left."""

    incoming: Incoming
    cid: bytes
    payload: bytes
    started: float
    deadline: float
    delivered: Delivered
    expected_outputs: float
    attempts: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[tuple[str, str], AccelError] = field(default_factory=dict)
    route: dict[str, Any] = field(default_factory=dict)

    @property
    def request(self) -> Request:
        return self.incoming.request

    @property
    def precision(self) -> str | None:
        """The one that it is to run in; None where that is left to whoever runs it."""
        return self.request.options.get("precision")

    @property
    def work(self) -> Work:
        """What is left to do: the output is as long as this model's usually are, and no longer than was asked for."""
        counted = Work.of(self.request.work)
        outputs = max(0.0, min(counted.outputs, self.expected_outputs) - len(self.delivered.token_ids))
        return replace(counted, outputs=outputs)

    def remaining_s(self) -> float:
        return self.deadline - trio.current_time()

    def next_request(self, backend: str) -> Request:
        """What the node that computes is asked: the exact CID, one backend, and the time that is left."""
        return replace(
            self.request,
            attempt=len(self.attempts),
            model=format_cid(self.cid),
            options={
                "backend": backend,
                **({OPTION: True} if self.delivered else {}),
                **({} if self.precision is None else {"precision": self.precision}),
            },
            remaining_ms=max(1, int(self.remaining_s() * 1000)),
            work=self.work.as_dict(),
        )

    def next_payload(self) -> bytes:
        """The inputs, and with them the output that the caller has already."""
        if not self.delivered:
            return self.payload
        return pack_resumption(self.payload, self.delivered.token_ids, self.delivered.characters)

    async def take_chunk(self, offset: int, token_ids: list[int], text: str) -> None:
        """Remembers output, so that another attempt can go on from it, and gives it to a caller who wants a stream."""
        is_new = self.delivered.take(offset, token_ids, text)
        self.incoming.tokens = len(self.delivered.token_ids)
        if is_new and self.request.options.get("stream"):
            await self.incoming.chunk(offset, token_ids, text)


@dataclass(frozen=True)
class Attempt:
    """One try at one candidate: the work that was left, when it began, and the tokens that were there before."""

    prediction: Prediction
    work: Work
    began: float
    outputs_before: int


@dataclass
class JobCounters:
    """What is in flight returns to zero however jobs end."""

    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        except trio.Cancelled:
            self.cancelled += 1
            raise
        except BaseException:
            self.failed += 1
            raise
        else:
            self.completed += 1
        finally:
            self.running -= 1

"""A text that `Client` reads while it is being written.

for piece in client.generate(model, prompt, stream=True):
    print(piece, end="")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType

from ..protocols.errors import AccelError
from ..protocols.inference_session import Answer, ChunkReceived, ResultReceived
from .client_jobs import Job
from .client_requests import OnProgress, value_of
from .client_text import Asked, Generation, Pieces, malformed
from .delivered import Delivered


class TextStream(Job):
    """Iterating gives the new text piece by piece, to one thread; leaving the loop early cancels the job.

    A generation survives the node that computes it: another goes on from the tokens that are here. When the node that
    was asked goes away itself, iterating raises JobError peer-lost, and `client.resume_stream(stream)` asks for the
    rest of the same job once it is back.

    Attributes:
        token_ids: what has come so far.
        text: what was read of it.
    """

    def __init__(
        self, asked: Asked, on_progress: OnProgress | None = None, goes_on_from: TextStream | None = None
    ) -> None:
        super().__init__(asked.request.job_id, asked.seconds, on_progress)
        self.text: str = goes_on_from.text if goes_on_from else ""
        self._pieces = goes_on_from.pieces() if goes_on_from else Pieces()
        self.asked = asked.going_on_from(self.delivered) if goes_on_from else asked
        self._news = threading.Condition()

    def __enter__(self) -> TextStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[str]:
        """Raises JobError when the job ends without a result, after all that came before."""
        try:
            while not self.done():
                yield from self._read(wait=True)
            yield from self._read(wait=False)
            self.result()
        except BaseException:
            # Whoever leaves early, by Ctrl-C too; nothing when it has ended.
            self.cancel()
            raise

    @property
    def token_ids(self) -> list[int]:
        return list(self._pieces.delivered.token_ids)

    @property
    def delivered(self) -> Delivered:
        return self._pieces.delivered

    def pieces(self) -> Pieces:
        """A copy of what came, for another attempt."""
        with self._news:
            return self._pieces.copy()

    def generation(self, timeout: float | None = None) -> Generation:
        """The whole text, when it is there. Raises JobError, or TimeoutError after `timeout` seconds."""
        return Generation.of(self.result(timeout), self.report)

    def take(self, event: Answer) -> None:
        with self._news:
            try:
                if isinstance(event, ChunkReceived):
                    self._pieces.take(event)
                elif isinstance(event, ResultReceived):
                    self._pieces.settle(value_of(event.payload))
            except (AccelError, KeyError, TypeError) as error:
                self.leave(malformed(error))
        super().take(event)
        self._tell()

    def fail(self, error: AccelError) -> bool:
        failed = super().fail(error)
        self._tell()
        return failed

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _read(self, *, wait: bool) -> Iterator[str]:
        self._check_may_wait()
        with self._news:
            if not (piece := self._pieces.read()) and wait and not self.done():
                self._news.wait(max(0.0, self._deadline - time.monotonic()))
                piece = self._pieces.read()
        if piece:
            self.text += piece
            yield piece
        elif wait and time.monotonic() >= self._deadline:
            self.wait(0)

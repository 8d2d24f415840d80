"""A text that `AsyncClient` reads while it is being written.

async with await client.generate(model, prompt, stream=True) as stream:
    async for piece in stream:
        print(piece, end="")
"""

from __future__ import annotations

from types import TracebackType

import anyio

from ..protocols.errors import AccelError, JobError
from ..protocols.inference_session import ChunkReceived
from .async_jobs import AsyncJob, Completed
from .client_text import Asked, Generation, Pieces, malformed
from .delivered import Delivered


class AsyncTextStream(AsyncJob):
    """Iterating gives the new text piece by piece. Leaving its `async with` early cancels the job.

    When the node that was asked goes away, iterating raises JobError peer-lost, and `client.resume_stream(stream)`
    asks for the rest of the same job.

    Attributes:
        token_ids: what has come so far.
        text: what was read of it.
    """

    def __init__(self, asked: Asked, goes_on_from: AsyncTextStream | None = None) -> None:
        super().__init__(asked.request.job_id)
        self.text: str = goes_on_from.text if goes_on_from else ""
        self._pieces: Pieces = goes_on_from._pieces.copy() if goes_on_from else Pieces()
        self.asked = asked.going_on_from(self.delivered) if goes_on_from else asked
        self._news = anyio.Event()

    async def __aenter__(self) -> AsyncTextStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncTextStream:
        return self

    async def __anext__(self) -> str:
        """Raises JobError when the job ends without a result, after all that came before."""
        while not (piece := self._pieces.read()):
            if self.done():
                await self.result()
                raise StopAsyncIteration
            await self._news.wait()
        self.text += piece
        return piece

    @property
    def token_ids(self) -> list[int]:
        return list(self.delivered.token_ids)

    @property
    def delivered(self) -> Delivered:
        return self._pieces.delivered

    async def generation(self, timeout: float | None = None) -> Generation:
        """The whole text, when it is there. Raises JobError, or TimeoutError after `timeout` seconds."""
        return Generation.of(await self.result(timeout), self.report)

    def take(self, chunk: ChunkReceived) -> None:
        try:
            self._pieces.take(chunk)
        except AccelError as error:
            self._give_up(JobError(error.code, error.message))
        self._tell()

    def _ended_with(self, outcome: Completed | AccelError) -> None:
        if isinstance(outcome, Completed):
            try:
                self._pieces.settle(outcome.value)
            except (KeyError, TypeError) as error:
                self._outcome = malformed(error)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

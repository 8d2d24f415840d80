"""`ClientTasks` for asyncio and trio: the same names, arguments and errors. Files are read in a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Unpack

import anyio

from .async_jobs import AsyncJob
from .client_requests import IMAGE_TEXT
from .client_tasks import (
    CLASSIFY_AUDIO,
    CLASSIFY_IMAGE,
    CLASSIFY_VIDEO,
    DESCRIBE,
    NAME_VIDEO,
    REWRITE,
    TRANSCRIBE,
    TaskOptions,
    generated,
    label_params,
    limit_params,
    media,
    of_several,
    question,
    spoken,
    summary_params,
)


class AsyncClientTasks:
    """The part of `AsyncClient` that is about pictures, sounds, films, and texts made of texts."""

    async def transcribe(self, model: str, audio: Any, **options: Unpack[TaskOptions]) -> Any:
        return spoken(await self._asked(model, TRANSCRIBE, audio, **options))

    async def classify_image(
        self, model: str, image: Any, labels: list[str] | str, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        return await self._asked(model, CLASSIFY_IMAGE, image, **options, **label_params(labels, template))

    async def classify_audio(
        self, model: str, audio: Any, labels: list[str] | str, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        return await self._asked(model, CLASSIFY_AUDIO, audio, **options, **label_params(labels, template))

    async def classify_video(
        self, model: str, video: Any, labels: list[str] | str | None = None, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        if labels is None:
            return await self._asked(model, NAME_VIDEO, video, **options)
        return await self._asked(model, CLASSIFY_VIDEO, video, **options, **label_params(labels, template))

    async def summarize(
        self, model: str, text: str | list[str], *, max_new_tokens: int | None = None, **options: Unpack[TaskOptions]
    ) -> Any:
        job = await self.submit(model, REWRITE, text, **options, **summary_params(max_new_tokens))
        return generated(await job.result())

    async def describe(
        self, model: str, image: Any, prompt: str = DESCRIBE, *, max_new_tokens: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        params = limit_params(max_new_tokens)
        if isinstance(image, list):
            asked = [await anyio.to_thread.run_sync(question, [each], prompt) for each in image]
            answers = self.map(model, asked, IMAGE_TEXT, **of_several(options), **params)
            return generated([each async for each in answers])
        given = await anyio.to_thread.run_sync(question, [image], prompt)
        job = await self.submit(model, IMAGE_TEXT, given, **options, **params)
        return generated(await job.result())

    def map(self, model: str, inputs: Any, task: str | None = None, **options: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def _asked(self, model: str, task: str, value: Any, **options: Any) -> Any:
        given = await anyio.to_thread.run_sync(media, value)
        job = await self.submit(model, task, given, **options)
        return await job.result()

    async def submit(self, model: str, task: str, inputs: Any, **options: Any) -> AsyncJob:
        raise NotImplementedError

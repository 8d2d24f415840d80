"""What a client asks of models that see, hear and rewrite, by the names that people have for it; each is a `submit`.

A picture, a sound or a film is a file's path or its bytes, or an array; a list of them gives a list of answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from ..protocols.errors import AccelError, ErrorCode
from .client_jobs import Job
from .client_requests import IMAGE_TEXT, OnProgress

TRANSCRIBE: Final = "automatic-speech-recognition"
CLASSIFY_IMAGE: Final = "zero-shot-image-classification"
CLASSIFY_AUDIO: Final = "zero-shot-audio-classification"
CLASSIFY_VIDEO: Final = "zero-shot-video-classification"
REWRITE: Final = "text2text-generation"
NAME_VIDEO: Final = "video-classification"
#: What a picture is asked when nothing else is.
DESCRIBE: Final = "Describe this picture."
#: What a payload may have.
_MAX_FILE: Final = 64 << 20


class TaskOptions(TypedDict, total=False):
    """How a job goes on its way; as in `Client.submit`."""

    timeout: float | None
    on: str | None
    precision: str | None
    job_id: bytes | str | None
    on_progress: OnProgress | None


class ClientTasks:
    """The part of `Client` that is about pictures, sounds, films, and texts made of texts."""

    def transcribe(self, model: str, audio: Any, **options: Unpack[TaskOptions]) -> Any:
        """What is said in a sound: a text, or a list of them for a list. Raises AccelError, JobError."""
        return spoken(self.submit(model, TRANSCRIBE, media(audio), **options).result())

    def classify_image(
        self, model: str, image: Any, labels: list[str] | str, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """Which of the labels fits a picture: `[{"label", "score"}, …]`, the best first; scores sum to 1.

        Args:
            labels: a list, or a text with commas.
            template: the sentence that a label is put into, with one {}; the model's own when None.
        """
        params = label_params(labels, template)
        return self.submit(model, CLASSIFY_IMAGE, media(image), **options, **params).result()

    def classify_audio(
        self, model: str, audio: Any, labels: list[str] | str, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """Which of the labels fits a sound; as `classify_image`."""
        params = label_params(labels, template)
        return self.submit(model, CLASSIFY_AUDIO, media(audio), **options, **params).result()

    def classify_video(
        self, model: str, video: Any, labels: list[str] | str | None = None, *, template: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """Which of the labels fits a film; without labels, which of those that the model was trained with."""
        if labels is None:
            return self.submit(model, NAME_VIDEO, media(video), **options).result()
        params = label_params(labels, template)
        return self.submit(model, CLASSIFY_VIDEO, media(video), **options, **params).result()

    def summarize(
        self, model: str, text: str | list[str], *, max_new_tokens: int | None = None, **options: Unpack[TaskOptions]
    ) -> Any:
        """What a text says, shorter: a text, or a list of them for a list."""
        params = summary_params(max_new_tokens)
        return generated(self.submit(model, REWRITE, text, **options, **params).result())

    def describe(
        self, model: str, image: Any, prompt: str = DESCRIBE, *, max_new_tokens: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:  # fmt: skip
        """What a model says of a picture: a text; for a list a list of them, each written by a job of its own.

        `Client.generate` takes messages with pictures, gives the text while it is written, and has all its parameters.
        """
        params = limit_params(max_new_tokens)
        if isinstance(image, list):
            asked = (question([each], prompt) for each in image)
            return generated(list(self.map(model, asked, IMAGE_TEXT, **of_several(options), **params)))
        return generated(self.submit(model, IMAGE_TEXT, question([image], prompt), **options, **params).result())

    def map(self, model: str, inputs: Iterable[Any], task: str | None = None, **options: Any) -> Iterator[Any]:
        raise NotImplementedError

    def submit(self, model: str, task: str, inputs: Any, **options: Any) -> Job:
        raise NotImplementedError


def media(value: Any) -> Any:
    """What a job is given: the bytes of a file for its path. Raises AccelError bad-input, too-large."""
    if isinstance(value, (str, Path)):
        return _read(Path(value))
    if isinstance(value, list):
        return [media(each) for each in value]
    return value


def label_params(labels: list[str] | str, template: str | None) -> dict[str, Any]:
    named = {} if template is None else {"hypothesis_template": template}
    return {"candidate_labels": labels, **named}


def summary_params(max_new_tokens: int | None) -> dict[str, Any]:
    """The model's own words for it, where its configuration has some."""
    return {"prefix": "summarization", **limit_params(max_new_tokens)}


def limit_params(max_new_tokens: int | None) -> dict[str, Any]:
    return {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}


def of_several(options: TaskOptions) -> dict[str, Any]:
    """Raises AccelError bad-input: one id for several jobs would give all of them one answer."""
    given = {**options}
    if given.pop("job_id", None) is not None:
        raise AccelError(ErrorCode.BAD_INPUT, "several pictures are several jobs, and a job_id is of one")
    return given


def question(pictures: list[Any], prompt: str) -> list[dict[str, Any]]:
    """Messages that ask about all of these pictures."""
    shown = [{"type": "image", "image": media(each)} for each in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]


def generated(result: Any) -> Any:
    """The text that was written, or each of several."""
    return [each["generated_text"] for each in result] if isinstance(result, list) else result["generated_text"]


def spoken(result: Any) -> Any:
    """The text of a transcript, or of each of several."""
    return [each["text"] for each in result] if isinstance(result, list) else result["text"]


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise AccelError(ErrorCode.TOO_LARGE, f"{path} is over {_MAX_FILE >> 20} MiB", "Give a part of it.")
        return path.read_bytes()
    except OSError as error:
        raise AccelError(ErrorCode.BAD_INPUT, f"{path}: {error.strerror}", "Give a file's path or its bytes.") from None

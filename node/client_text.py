"""What both clients know of text generation: its parameters, its result, and an output that comes piece by piece."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from ..protocols.errors import AccelError, ErrorCode, JobError
from ..protocols.inference import Request
from ..protocols.inference_session import ChunkReceived
from ..protocols.resumption import OPTION, pack_resumption
from ..protocols.values import pack, unpack
from .client_requests import GENERATED, IMAGE_TEXT, TEXT_GENERATION, OnProgress, checked_timeout, make_request
from .delivered import Delivered

Prompt = str | list[dict[str, Any]]


class TextOptions(TypedDict, total=False):
    """How a text is written, and how long it may take; what is None or left out is as the model's node has it.

    Attributes:
        max_new_tokens: 256 when left out.
        temperature: 0, the default, takes the best token each time; above that tokens are drawn.
        top_p, top_k: draw from the likeliest tokens alone: those that make up `top_p`, `top_k` at most.
        seed: makes the drawing repeatable.
        stop: texts that end the output, and are left out of it.
        repetition_penalty: above 1 makes what was said already less likely.
        chat: take a plain text as a message to the assistant, where the model has a chat template.
        ignore_eos: go on to `max_new_tokens` whatever the model says.
        timeout: seconds in all.
        on: a node's name or peer id, or "local", to force where it runs.
        precision: such as "f32", to have it run in that alone.
        job_id: to ask for the same job again.
        on_progress: called with (state, done, total, note).
    """

    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    stop: str | list[str] | None
    repetition_penalty: float | None
    chat: bool | None
    ignore_eos: bool | None
    timeout: float | None
    on: str | None
    precision: str | None
    job_id: bytes | str | None
    on_progress: OnProgress | None


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote.

    Attributes:
        text: the new text alone, without the prompt.
        finish_reason: "stop" when the model or a stop text ended it, "length" at `max_new_tokens`.
        seed: what the drawing began with; None when nothing was drawn.
        report: who computed it, on what, and how long it took.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    prompt_tokens: int
    seed: int | None
    job_id: str
    report: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, value: Any, report: dict[str, Any]) -> Generation:
        """From the value of a job. Raises JobError protocol-error for one that is no text."""
        try:
            text, ids = value[GENERATED], list(value["token_ids"])
            told = value["finish_reason"], value["prompt_tokens"], value["seed"], report["job_id"]
        except (KeyError, TypeError, IndexError) as error:
            raise malformed(error) from None
        return cls(text, ids, *told, report)

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Asked:
    """A job as it was sent, so that it can be asked for again."""

    request: Request
    payload: bytes
    seconds: float

    def going_on_from(self, delivered: Delivered) -> Asked:
        """The same job under the same id, which goes on after what the caller has."""
        options = {**self.request.options, OPTION: True}
        payload = pack_resumption(self._inputs(), delivered.token_ids, delivered.characters)
        return replace(self, request=replace(self.request, options=options), payload=payload)

    def _inputs(self) -> bytes:
        """The inputs alone, also of a job that went on from an earlier one itself."""
        return pack(unpack(self.payload)["inputs"]) if self.request.options.get(OPTION) else self.payload


class Pieces:
    """What came of an output and was not read yet, in order, each token once."""

    def __init__(self) -> None:
        self.delivered = Delivered()
        self._waiting: list[str] = []

    def copy(self) -> Pieces:
        """For another attempt, which goes on after what came, and gives what was not read too."""
        pieces = Pieces()
        pieces.delivered, pieces._waiting = self.delivered.copy(), self._waiting.copy()
        return pieces

    def take(self, chunk: ChunkReceived) -> None:
        """Raises AccelError protocol-error for a chunk that leaves something out."""
        if self.delivered.take(chunk.offset, chunk.token_ids, chunk.text) and chunk.text:
            self._waiting.append(chunk.text)

    def settle(self, value: Any) -> None:
        """The result holds the whole output; what did not come in pieces is the last piece.

        Raises KeyError or TypeError for a value that is no text.
        """
        text, ids = str(value[GENERATED]), list(value["token_ids"])
        if rest := text[self.delivered.characters :]:
            self._waiting.append(rest)
        self.delivered.token_ids, self.delivered.characters = ids, len(text)

    def read(self) -> str:
        """Everything that waits; empty when nothing does."""
        waiting, self._waiting = self._waiting, []
        return "".join(waiting)


def malformed(error: Exception) -> JobError:
    return JobError(ErrorCode.PROTOCOL_ERROR, f"the node's output is malformed: {error!r}"[:300])


def ask(model: str, prompt: Any, options: TextOptions, *, default_timeout: float, stream: bool) -> Asked:
    """The job for a text. One that draws gets a seed here, so that every attempt at it has the same.

    Raises:
        AccelError: bad-input, too-large.
    """
    given: dict[str, Any] = {**options}
    if unknown := sorted(set(given) - set(TextOptions.__annotations__)):
        raise TypeError(f"generate() has no option {unknown[0]!r}; it has {', '.join(TextOptions.__annotations__)}")
    given.pop("on_progress", None)
    seconds = checked_timeout(given.pop("timeout", None), default_timeout)
    on, job_id = given.pop("on", None), given.pop("job_id", None)
    temperature = given.get("temperature")
    if isinstance(temperature, (int, float)) and temperature > 0 and given.get("seed") is None:
        given["seed"] = int.from_bytes(os.urandom(4))
    request, payload = make_request(
        model, _task_of(prompt), _checked(prompt), given, seconds=seconds, on=on, job_id=job_id, stream=stream
    )
    return Asked(request, payload, seconds)


def _task_of(prompt: Any) -> str:
    """Messages whose content is parts, text and images, are for models that see."""
    parts = isinstance(prompt, list) and any(isinstance(each, dict) and _has_parts(each) for each in prompt)
    return IMAGE_TEXT if parts else TEXT_GENERATION


def _has_parts(message: dict[str, Any]) -> bool:
    return isinstance(message.get("content"), list)


def _checked(prompt: Any) -> Prompt:
    """Raises AccelError bad-input; what a message may be is for the model's family to say."""
    if isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(each, dict) for each in prompt)):
        return prompt
    raise AccelError(
        ErrorCode.BAD_INPUT,
        "a prompt is a text or a list of messages",
        'A message is {"role": "user", "content": "a text"}.',
    )

"""Messages with images in them, in the forms that transformers' image-text-to-text pipeline takes. Pure.

"what to go on from, with <image> where an image stands"                         → no images
[{"role": "user", "content": [{"type": "image", "image": …}, {"type": "text", "text": …}]}, …]
{"text": either of both, "images": image | [image, …]}       the images in the order of their places
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ..interface import BackendError
from .chat import MAX_MESSAGES

MAX_IMAGES: Final = 16
_MAX_PARTS: Final = 4096


@dataclass(frozen=True)
class Pictured:
    """A text, or messages whose contents are lists of parts as templates read them; and all images, in order."""

    text: str | None
    messages: list[dict[str, Any]]
    images: list[Any]


def read_pictured(inputs: Any) -> Pictured:
    """Raises BackendError bad-input, too-large; the images are not looked at."""
    said, given = inputs, []
    if isinstance(inputs, dict):
        if set(inputs) - {"text", "images"} or "text" not in inputs:
            raise _not_understood('A map has "text" and "images".')
        said, given = inputs["text"], inputs.get("images", [])
        given = given if isinstance(given, list) else [given]
    if isinstance(said, str):
        return Pictured(said, [], _bounded(given))
    if not isinstance(said, list) or not said or len(said) > MAX_MESSAGES:
        raise _not_understood()
    waiting = list(reversed(given))
    images: list[Any] = []
    messages = [_message(each, waiting, images) for each in said]
    if waiting:
        raise BackendError("bad-input", f"{len(waiting)} images have no place in the messages", "One part for each.")
    return Pictured(None, messages, _bounded(images))


def _message(said: Any, waiting: list[Any], images: list[Any]) -> dict[str, Any]:
    """Its images go to the end of `images`; those that are not in it are taken from the end of `waiting`."""
    role, content = (said.get("role"), said.get("content")) if isinstance(said, dict) else (None, None)
    if not isinstance(role, str):
        raise _not_understood()
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or len(parts) > _MAX_PARTS:
        raise _not_understood()
    return {"role": role, "content": [_part(each, waiting, images) for each in parts]}


def _part(said: Any, waiting: list[Any], images: list[Any]) -> dict[str, str]:
    kind = said.get("type") if isinstance(said, dict) else None
    if kind == "text" and isinstance(said.get("text"), str):
        return {"type": "text", "text": said["text"]}
    if kind != "image" or set(said) - {"type", "image"}:
        raise _not_understood("An image comes as bytes or as an array, never as an address.")
    if said.get("image") is not None:
        images.append(said["image"])
    elif waiting:
        images.append(waiting.pop())
    else:
        raise BackendError("bad-input", "an image has its place in the messages, and is not there")
    return {"type": "image"}


def _bounded(images: list[Any]) -> list[Any]:
    if len(images) > MAX_IMAGES:
        raise BackendError("too-large", f"{len(images)} images; at most {MAX_IMAGES} at once", "Send fewer.")
    return images


def _not_understood(hint: str = "") -> BackendError:
    example = '[{"role": "user", "content": [{"type": "image", "image": …}, {"type": "text", "text": "…"}]}]'
    return BackendError("bad-input", "the input is neither a text nor messages", hint or f"Messages: {example}.")

"""What `run` is given besides lines of text: whole files, and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ...protocols.errors import AccelError, ErrorCode
from ..client_requests import MAX_PAYLOAD
from ..map_window import checked_params
from .whole_file import WholeFile

#: What is in the names of those tasks that take a file as its bytes.
_OF_BYTES: Final = ("audio", "speech", "image", "object-detection", "video")


def for_task(inputs: Iterable[str | WholeFile], task: str) -> list[str | bytes]:
    """The inputs of a job, files read whole. Raises AccelError bad-input, too-large."""
    return [_content(each.path, task) if isinstance(each, WholeFile) else each for each in inputs]


def _content(path: str, task: str) -> str | bytes:
    data = _read(path)
    if any(kind in task for kind in _OF_BYTES):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise AccelError(
            ErrorCode.BAD_INPUT, f"{path} is not text in UTF-8, which {task} takes", "Convert it first."
        ) from None


def _read(path: str) -> bytes:
    """Bounded, whatever the file says of its size."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_PAYLOAD + 1)
    except OSError as error:
        raise AccelError(ErrorCode.BAD_INPUT, f"{path}: {error.strerror}", "Check the --file.") from None
    if len(data) > MAX_PAYLOAD:
        raise AccelError(ErrorCode.TOO_LARGE, f"{path} is over the limit of {MAX_PAYLOAD >> 20} MiB", "Split it.")
    return data


def params_of(given: Iterable[str], precision: str | None = None) -> dict[str, Any]:
    """Parameters from `NAME=VALUE`, the value in JSON or else a text, and from --precision. Raises AccelError."""
    params: dict[str, Any] = {} if precision is None else {"precision": precision}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise AccelError("usage", f"--param takes NAME=VALUE, not {each!r}", "For one: --param pooling=cls")
        params[name] = _value(value)
    return dict(checked_params(params))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text

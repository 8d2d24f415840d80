"""The two files of a batch: JSON lines in, and one line out for each of them, in the same order.

    in    "a text"
          {"input": …, "params": {…}, "id": …}
    out   {"batch": {"version": 1, "input_sha256": …, "model": CID, "task": …, "params": {…}}}
          {"index": 0, "id": null, "value": …, "report": {"node_name": …, "backend": …, "seconds": …}}
          {"index": 1, "id": …, "error": {"code": …, "message": …, "hint": …}}

A line of the out file counts when it ends with its newline. So a program that is killed leaves a beginning that is
whole but for the last line, and the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from ...protocols.errors import AccelError, ErrorCode
from ..map_window import checked_params

#: A line of the input may have this many bytes, its newline included.
MAX_LINE: Final = 16 << 20
_READ_SIZE: Final = 1 << 20
_MAX_ID: Final = 1024
_KEYS: Final = frozenset({"input", "params", "id"})


@dataclass(frozen=True)
class InputLine:
    input: Any
    params: dict[str, Any] = field(default_factory=dict)
    id: str | int | None = None


@dataclass(frozen=True)
class Kept:
    """What an out file holds already: whole lines, the failed ones among them, and where they end."""

    lines: int
    failed: int
    end: int


# --- the input


def survey(path: Path) -> tuple[str, int]:
    """The SHA-256 of a file in hexadecimal, and how many lines it has."""
    digest, newlines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while piece := file.read(_READ_SIZE):
            digest.update(piece)
            newlines += piece.count(b"\n")
            last = piece[-1:]
    return digest.hexdigest(), newlines + (last != b"\n")


def lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line; None in the place of one that is too long, which is never held."""
    while line := file.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_READ_SIZE)
        yield None


def parse_line(index: int, line: bytes | None) -> InputLine:
    """Raises AccelError bad-input or too-large, with the line's number as an editor counts it."""
    if line is None:
        raise AccelError(ErrorCode.TOO_LARGE, f"line {index + 1} is over the limit of {MAX_LINE >> 20} MiB")
    try:
        return _checked_line(json.loads(line.decode(), parse_constant=_no_constant))
    except RecursionError:
        raise _bad_line(index, "is nested too deeply") from None
    except UnicodeDecodeError:
        raise _bad_line(index, "is not text in UTF-8") from None
    except AccelError as error:
        raise _bad_line(index, error.message) from None
    except ValueError as error:
        raise _bad_line(index, f"is not JSON: {error}") from None


def _checked_line(value: Any) -> InputLine:
    if isinstance(value, str):
        return InputLine(value)
    if not isinstance(value, dict) or "input" not in value:
        raise _wrong('is neither a text nor an object with "input"')
    if unknown := sorted(set(value) - _KEYS):
        raise _wrong(f"has unknown keys: {', '.join(unknown)[:200]}")
    params, name = value.get("params") or {}, value.get("id")
    if not isinstance(params, dict):
        raise _wrong('has "params" that are no object')
    if not (name is None or type(name) is int or (isinstance(name, str) and len(name) <= _MAX_ID)):
        raise _wrong(f'has an "id" that is neither a number nor a text of at most {_MAX_ID} letters')
    try:
        return InputLine(value["input"], dict(checked_params(params)), name)
    except AccelError as error:
        raise _wrong(f'has "params" that cannot be used: {error.message}') from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _wrong(what: str) -> AccelError:
    return AccelError(ErrorCode.BAD_INPUT, what)


def _bad_line(index: int, what: str) -> AccelError:
    return AccelError(
        ErrorCode.BAD_INPUT, f"line {index + 1} {what}", 'A line is "a text" or {"input": …, "params": {…}, "id": …}.'
    )


# --- the output


def header_line(input_sha256: str, model: str, task: str, params: dict[str, Any]) -> bytes:
    facts = {"version": 1, "input_sha256": input_sha256, "model": model, "task": task, "params": params}
    return _line({"batch": facts})


def value_line(index: int, name: str | int | None, value: Any, report: dict[str, Any]) -> bytes:
    """A value without a form in JSON, such as one with NaN in it, gives an error's line."""
    short = {"node_name": report.get("node_name"), "backend": report.get("backend"), "seconds": report.get("total_s")}
    short |= {"weights": report["weights"]} if "weights" in report else {}
    try:
        return _line({"index": index, "id": name, "value": value, "report": short})
    except (TypeError, ValueError) as error:
        return error_line(index, name, AccelError(ErrorCode.INTERNAL, f"the value has no form in JSON: {error}"))


def error_line(index: int, name: str | int | None, error: AccelError) -> bytes:
    return _line({"index": index, "id": name, "error": error.as_dict()})


def is_failed(line: bytes) -> bool:
    return b'"error": {' in line and "error" in json.loads(line)


def first_error(path: Path) -> str:
    """Of an out file that has one: which line of the input failed, and why."""
    with path.open("rb") as lines:
        failed = json.loads(next(filter(is_failed, lines)))
    message = str(failed["error"]["message"])
    return message if message.startswith("line ") else f"line {failed['index'] + 1}: {message}"


def _line(document: dict[str, Any]) -> bytes:
    """What no UTF-8 can say, a lone surrogate, becomes the escape that JSON has for it."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"


# --- going on


def read_kept(lines: Iterable[bytes], header: bytes, path: Path) -> Kept:
    """How much of an out file stands, from its lines as they are; the rest, at most a line, is to be cut off.

    Raises AccelError other-batch when it is not the beginning of this batch's output.
    """
    kept = Kept(0, 0, 0)
    for number, line in enumerate(lines):
        if not line.endswith(b"\n") and (number or header.startswith(line)):
            break
        if number == 0:
            _check_header(line, header, path)
            kept = Kept(0, 0, len(header))
        elif line.startswith(b'{"index": %d, ' % kept.lines) and line.endswith(b"}\n"):
            kept = Kept(kept.lines + 1, kept.failed + is_failed(line), kept.end + len(line))
        else:
            raise _other_batch(f"line {number + 1} of {path} was not written by a batch")
    return kept


def _check_header(line: bytes, header: bytes, path: Path) -> None:
    if line == header:
        return
    wanted = json.loads(header)["batch"]
    try:
        found = json.loads(line)["batch"]
        other = [name for name in wanted if found.get(name) != wanted[name]]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _other_batch(f"{path} is no out file of a batch") from None
    said = ", ".join("input" if name == "input_sha256" else name for name in other)
    raise _other_batch(f"{path} belongs to another batch, not of the same {said or 'header'}")


def _other_batch(message: str) -> AccelError:
    return AccelError(ErrorCode.OTHER_BATCH, message, "Give another --out, or remove that file.")

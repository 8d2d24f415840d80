"""`run --batch IN --out OUT`: a job for each line of a file, in bounded memory, going on where it was interrupted."""

from __future__ import annotations

import argparse
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..client_jobs import Job
from ..client_map import outcomes
from ..client_requests import TEXT_GENERATION, NodeLostError, checked_timeout
from ..map_window import Outcome, Window, checked_concurrency, own_task, usual_concurrency
from .batch_file import (
    Kept,
    error_line,
    first_error,
    header_line,
    is_failed,
    lines_of,
    parse_line,
    read_kept,
    survey,
    value_line,
)
from .inputs import params_of
from .output import console, count, count_progress, duration, plain, print_json, safe
from .reaching import client_of
from .writing import given_flags


def run(options: argparse.Namespace) -> int:
    _check_usage(options)
    began = time.monotonic()
    with client_of(options) as client:
        batch = _Batch(client, options)
        done = batch.run()
    seconds = time.monotonic() - began
    if options.json:
        print_json({"out": str(options.out), "lines": done.lines, "failed": done.failed, "before": batch.before,
                    "seconds": seconds})  # fmt: skip
    else:
        _show(options, done, batch.before, seconds)
    return 1 if done.failed else 0


def _check_usage(options: argparse.Namespace) -> None:
    if options.out is None:
        raise AccelError("usage", "--batch needs --out", "Give the file for the results: --out out.jsonl")
    if options.input or options.explain:
        raise AccelError("usage", "--batch reads its inputs from its file alone, and explains nothing")
    if given := given_flags(options):
        raise AccelError(
            "usage", f"{given[0]} does not go with --batch", "Say it as a parameter, such as --param max_new_tokens=64."
        )
    checked_timeout(options.timeout, 0)
    checked_concurrency(options.concurrency)
    if not options.batch.is_file():
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.batch} is no file", "Give a file of JSON lines.")
    if options.out.exists() and not options.out.is_file():
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.out} is no file", "Give the file for the results.")
    if not options.out.parent.is_dir():
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.out.parent} is no folder", "Make it first.")
    if options.out.exists() and options.out.samefile(options.batch):
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.out} is the input", "Give another --out.")


def _show(options: argparse.Namespace, done: Kept, before: int, seconds: float) -> None:
    again = f", {before} of them before" if before else ""
    lines, out = count(done.lines, "line"), console()
    out.print(f"{lines}{again}, {done.failed} failed, {duration(seconds)} → {safe(options.out)}", soft_wrap=True)
    if done.failed:
        out.print(f"[yellow]the first of them, {safe(first_error(options.out))}[/]", soft_wrap=True)
        out.print("[yellow]--retry-errors does those that failed again[/]")


@dataclass
class _Each:
    """One line of the input on its way, and what an earlier run made of it."""

    index: int
    raw: bytes | None
    kept: bytes | None
    id: str | int | None = None


def _defaults(task: str) -> dict[str, Any]:
    """A line is what `--input` is: for a model that writes text, a message to the assistant."""
    return {"chat": True} if task == TEXT_GENERATION else {}


class _Batch:
    """One run of one batch.

    Attributes:
        before: lines that stood in the out file already.
    """

    def __init__(self, client: Client, options: argparse.Namespace) -> None:
        self.before = 0
        self._client = client
        self._options = options
        info = client.model_info(options.model)
        self._model = str(info["cid"])
        self._task = options.task or own_task(info, options.model)
        self._params = {**_defaults(self._task), **params_of(options.param, options.precision)}
        self._concurrency = options.concurrency or usual_concurrency(info)
        sha256, self._total = survey(options.batch)
        self._header = header_line(sha256, self._model, self._task, self._params)
        self._waiting: deque[_Each] = deque()

    def run(self) -> Kept:
        """What the out file holds at the end."""
        with _locked(self._options.out) as out:
            kept = self._kept(out, self._options.out)
            self.before = kept.lines
            if self._options.retry_errors and kept.failed:
                return self._run_again(out)
            return self._go_on(out, kept, iter(()))

    def _run_again(self, before: BinaryIO) -> Kept:
        """Writes another file beside, which takes the first one's place when it is whole."""
        out = self._options.out
        beside = out.with_name(out.name + ".retry")
        with _locked(beside) as again:
            before.seek(len(self._header))
            whole = (line for line in before if line.endswith(b"\n"))
            done = self._go_on(again, self._kept(again, beside), whole)
            os.fsync(again.fileno())
            os.replace(beside, out)
        return done

    def _kept(self, out: BinaryIO, path: Path) -> Kept:
        kept = read_kept(out, self._header, path)
        if kept.lines > self._total:
            raise AccelError(ErrorCode.OTHER_BATCH, f"{path} has more lines than the input", "Give another --out.")
        return kept

    def _go_on(self, out: BinaryIO, kept: Kept, before: Iterator[bytes]) -> Kept:
        out.seek(kept.end)
        out.truncate()
        if not kept.end:
            out.write(self._header)
        with ExitStack() as stack:
            file = stack.enter_context(self._options.batch.open("rb"))
            report = stack.enter_context(count_progress("lines", self._total, quiet=self._options.json))
            found = stack.enter_context(
                closing(outcomes(self._submit, _todo(file, before, kept.lines), Window(self._concurrency)))
            )
            report(kept.lines, kept.failed)
            for outcome in found:
                line = self._line(self._waiting.popleft(), outcome)
                out.write(line)
                out.flush()
                kept = Kept(kept.lines + 1, kept.failed + is_failed(line), kept.end + len(line))
                report(kept.lines, kept.failed)
        out.flush()
        return kept

    def _submit(self, each: _Each) -> Job | None:
        self._waiting.append(each)
        if each.kept is not None:
            return None
        raw, each.raw = each.raw, None
        line = parse_line(each.index, raw)
        each.id = line.id
        options = self._options
        return self._client.submit(
            self._model,
            self._task,
            line.input,
            timeout=options.timeout,
            on=options.on,
            **{**self._params, **line.params},
        )

    def _line(self, each: _Each, outcome: Outcome) -> bytes:
        """Raises AccelError when the node itself is going or gone, which is nothing to write down for a line."""
        if each.kept is not None:
            return each.kept
        error = outcome.error
        if error is None:
            return value_line(each.index, each.id, plain(outcome.value), outcome.report)
        if isinstance(error, NodeLostError) or error.code == ErrorCode.DRAINING:
            raise AccelError(
                error.code,
                f"stopped before line {each.index + 1}: {error.message}",
                "When the node runs again, give the same command: it goes on from there.",
            )
        return error_line(each.index, each.id, error)


def _todo(file: BinaryIO, before: Iterator[bytes], first: int) -> Iterator[_Each]:
    """The lines from `first` on, each with what stands for it in an earlier output unless that is an error."""
    earlier = islice(before, first, None)
    for index, raw in enumerate(lines_of(file)):
        if index >= first:
            old = next(earlier, None)
            yield _Each(index, raw, None if old is None or is_failed(old) else old)


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read and write, made when it is not there; only one program has it at a time."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise _in_use(path)
        yield file


def _in_use(path: Path) -> AccelError:
    return AccelError(ErrorCode.BUSY, f"another run writes to {path}", "Wait until it has ended.")

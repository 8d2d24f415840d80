"""`run`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..client_requests import GENERATED, IMAGE_TEXT, QUESTION_TIMEOUT_S, TEXT_GENERATION, checked_timeout
from ..client_tasks import DESCRIBE, question
from ..client_text import Generation
from ..map_window import own_task
from . import writing
from .inputs import for_task, params_of
from .output import console, count, duration, plain, print_json, progress, safe, table, weights_note
from .reaching import client_of, elsewhere
from .whole_file import WholeFile

_MOST_SHOWN = 6


def run(options: argparse.Namespace) -> int | None:
    if options.batch is not None:
        from . import batch

        return batch.run(options)
    _no_batch(options)
    given, params = _inputs(options.input), params_of(options.param, options.precision)
    deadline = time.monotonic() + checked_timeout(options.timeout, 0)
    with client_of(options) as client, progress(options.model[:20], quiet=options.json) as report:
        task = options.task or _task_of(client, options.model, min(options.timeout, QUESTION_TIMEOUT_S))
        inputs = for_task(given, task)
        if task == TEXT_GENERATION:
            texts = writing.run(client, options, list(map(str, inputs)), params, deadline, report)
            _show_texts(texts, options)
            return None
        writing.check_unused(options, task)
        if task == IMAGE_TEXT:
            inputs = _shown_question(inputs)
        left = max(0.001, deadline - time.monotonic())
        job = client.submit(options.model, task, inputs, timeout=left, on=options.on, on_progress=report, **params)
        value = job.result()
    if options.json:
        print_json({"job_id": job.job_id, "value": plain(value), "report": job.report})
        return None
    _show_value(inputs, value)
    _show_report(job.report, _asked(options))
    if options.explain:
        _show_route(job.report, _asked(options))
    return None


def _shown_question(inputs: list[Any]) -> Any:
    """Messages with every --file as an image, and the texts after them."""
    texts = [each for each in inputs if isinstance(each, str)]
    return question([each for each in inputs if isinstance(each, bytes)], "\n".join(texts) or DESCRIBE)


def _show_texts(texts: list[Generation], options: argparse.Namespace) -> None:
    writing.show(texts, options)
    if options.explain and not options.json:
        _show_route(texts[-1].report, _asked(options))


def _no_batch(options: argparse.Namespace) -> None:
    if options.out is not None or options.retry_errors or options.concurrency is not None:
        raise AccelError("usage", "--out, --retry-errors and --concurrency belong to --batch", "See `run --help`.")


def _inputs(given: list[str | Path | WholeFile]) -> list[str | WholeFile]:
    """What was given, in its order; `-` and files of lines stand for their lines."""
    inputs: list[str | WholeFile] = []
    for each in given:
        if each == "-":
            inputs += _lines("the standard input", sys.stdin)
        elif isinstance(each, Path):
            inputs += _lines_of_file(each)
        elif isinstance(each, WholeFile):
            inputs.append(each)
        else:
            inputs.append(_checked(each, "--input"))
    if not inputs:
        raise AccelError(
            ErrorCode.BAD_INPUT,
            "there is no input",
            'Give one: --input "a text", --input-file FILE, --file FILE, or --input - for lines.',
        )
    return inputs


def _lines_of_file(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as file:
            return _lines(str(path), file)
    except OSError as error:
        raise AccelError(ErrorCode.BAD_INPUT, f"{path}: {error.strerror}", "Check the --input-file.") from None


def _lines(source: str, lines: Iterable[str]) -> list[str]:
    try:
        return [_checked(line.rstrip("\r\n"), source) for line in lines]
    except UnicodeDecodeError:
        raise _not_text(source) from None


def _checked(text: str, source: str) -> str:
    """Bytes that are no UTF-8 come as lone surrogates where the locale is lenient."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _not_text(source) from None
    return text


def _not_text(source: str) -> AccelError:
    return AccelError(ErrorCode.BAD_INPUT, f"{source} is not text in UTF-8", "Convert it first, with iconv for one.")


def _task_of(client: Client, model: str, timeout: float) -> str:
    return own_task(client.model_info(model, timeout=timeout), model)


def _show_value(inputs: list[str | bytes], value: Any) -> None:
    out = console()
    if isinstance(value, dict) and isinstance(value.get(GENERATED), str):
        value = value[GENERATED]
    if isinstance(value, str):
        out.print("\n".join(map(safe, value.splitlines())), soft_wrap=True)
        return
    if not hasattr(value, "shape") or len(value.shape) != 2:
        out.print(plain(value))
        return
    out.print(f"{count(value.shape[0], 'vector')} of {value.shape[1]}, float32")
    rows = table("text", "begins")
    for text, vector in list(zip(inputs, value, strict=True))[:_MOST_SHOWN]:
        rows.add_row(_shown(text, 60), " ".join(f"{number:+.4f}" for number in vector[:4]) + " …")
    out.print(rows)
    if 2 <= len(inputs) <= _MOST_SHOWN:
        _show_similarities(inputs, value)


def _shown(text: str | bytes, most: int) -> str:
    """Its beginning, on one line."""
    begins = text[:most]
    return safe(" ".join(begins.split()) if isinstance(begins, str) else begins)


def _show_similarities(inputs: list[str | bytes], vectors: Any) -> None:
    import numpy as np

    norms = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows = table("similarity", *(f">{_shown(text, 16)}" for text in inputs))
    for text, row in zip(inputs, norms @ norms.T, strict=True):
        rows.add_row(_shown(text, 40), *(f"{number:.3f}" for number in row))
    console().print(rows)


def _asked(options: argparse.Namespace) -> str:
    """What to call the place of the node that was asked, which over TLS is not here."""
    return "here" if elsewhere(options) is None else "the node asked"


def _show_report(report: dict[str, Any], asked: str) -> None:
    where = asked if report["local"] else "at a peer"
    console().print(
        f"by [bold]{safe(report['node_name'])}[/] ({where}) on {safe(report['backend'])}, {safe(report['precision'])}, "
        f"{safe(report['implementation'].get('library', ''))}: computed in {duration(report['compute_s'])}, "
        f"{duration(report['total_s'])} in all" + weights_note(report)
    )
    failed = [attempt for attempt in report["attempts"] if attempt["outcome"] != "ok"]
    for attempt in failed:
        what = safe(f"{attempt['node_name']} {attempt['backend']}: {attempt['outcome']}")
        console().print(f"[yellow]before that, {what}[/]")


def _show_route(report: dict[str, Any], asked: str) -> None:
    rows = table("candidate", "backend", ">predicted", ">round trip", ">wait", ">compute", ">cold")
    for place, candidate in enumerate(report["route"]["candidates"]):
        parts = candidate["parts"]
        rows.add_row(
            ("[green]→[/] " if place == 0 else "  ")
            + safe(candidate["node_name"])
            + (f" ({asked})" if candidate["local"] else ""),
            safe(candidate["backend"]),
            duration(candidate["predicted_s"]) if candidate["measured"] else "[dim]unknown[/]",
            *(duration(parts[part]) for part in ("round_trip", "wait", "compute")),
            duration(parts["fetch"] + parts["load"]),
        )
    out = console()
    out.print(rows)
    for candidate in report["route"]["candidates"]:
        out.print(f"[dim]{safe(candidate['node_name'])} {safe(candidate['backend'])}: {safe(candidate['reason'])}[/]")

"""`run`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client, Job
from ..client_requests import GRACE_S
from .output import console, duration, print_json, progress, table

_MOST_SHOWN = 6


def run(options: argparse.Namespace) -> None:
    inputs = _inputs(options.input)
    with Client(options.data_dir) as client, progress(options.model[:20], quiet=options.json) as report:
        task = options.task or _task_of(client, options.model)
        job = client.submit(options.model, task, inputs, timeout=options.timeout, on=options.on, on_progress=report)
        value = _wait(job, options.timeout)
    if options.json:
        print_json({"job_id": job.job_id, "value": _plain(value), "report": job.report})
        return
    _show_value(inputs, value)
    _show_report(job.report)
    if options.explain:
        _show_route(job.report)


def _inputs(given: list[str]) -> list[str]:
    lines = [line.rstrip("\n") for line in sys.stdin] if "-" in given else []
    inputs = [text for text in given if text != "-"] + lines
    if not inputs:
        raise AccelError(
            ErrorCode.BAD_INPUT, "there is no input", 'Give one: --input "a text", or --input - for lines.'
        )
    return inputs


def _task_of(client: Client, model: str) -> str:
    task = str(client.model_info(model)["task"])
    if not task:
        raise AccelError(ErrorCode.UNSUPPORTED_TASK, f"{model} is no model that can be run", "See `model info`.")
    return task


def _wait(job: Job, timeout: float) -> Any:
    try:
        return job.result(timeout + GRACE_S)
    except TimeoutError:
        job.cancel()
        raise AccelError(ErrorCode.DEADLINE_EXCEEDED, f"the node gave no answer within {timeout:g} s") from None
    except KeyboardInterrupt:
        job.cancel()
        raise


def _plain(value: Any) -> Any:
    """JSON has no arrays: nested lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _show_value(inputs: list[str], value: Any) -> None:
    out = console()
    if not hasattr(value, "shape") or len(value.shape) != 2:
        out.print(_plain(value))
        return
    out.print(f"{value.shape[0]} vectors of {value.shape[1]}, float32")
    rows = table("text", "begins")
    for text, vector in list(zip(inputs, value, strict=True))[:_MOST_SHOWN]:
        rows.add_row(text[:60], " ".join(f"{number:+.4f}" for number in vector[:4]) + " …")
    out.print(rows)
    if 2 <= len(inputs) <= _MOST_SHOWN:
        _show_similarities(inputs, value)


def _show_similarities(inputs: list[str], vectors: Any) -> None:
    import numpy as np

    norms = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows = table("similarity", *(f">{text[:16]}" for text in inputs))
    for text, row in zip(inputs, norms @ norms.T, strict=True):
        rows.add_row(text[:40], *(f"{number:.3f}" for number in row))
    console().print(rows)


def _show_report(report: dict[str, Any]) -> None:
    where = "here" if report["local"] else "at a peer"
    console().print(
        f"by [bold]{report['node_name']}[/] ({where}) on {report['backend']}, {report['precision']}, "
        f"{report['implementation'].get('library', '')}: computed in {duration(report['compute_s'])}, "
        f"{duration(report['total_s'])} in all"
    )
    failed = [attempt for attempt in report["attempts"] if attempt["outcome"] != "ok"]
    for attempt in failed:
        console().print(f"[yellow]before that, {attempt['node_name']} {attempt['backend']}: {attempt['outcome']}[/]")


def _show_route(report: dict[str, Any]) -> None:
    rows = table("", "candidate", "backend", ">predicted", ">round trip", ">wait", ">compute", ">fetch", ">load", "why")
    for place, candidate in enumerate(report["route"]["candidates"]):
        parts = candidate["parts"]
        rows.add_row(
            "[green]→[/]" if place == 0 else "",
            candidate["node_name"] + (" (here)" if candidate["local"] else ""),
            candidate["backend"],
            duration(candidate["predicted_s"]) if candidate["measured"] else "[dim]unknown[/]",
            *(duration(parts[part]) for part in ("round_trip", "wait", "compute", "fetch", "load")),
            candidate["reason"],
        )
    console().print(rows)

"""`run` of models that write text: as a stream or whole, a text or an answer."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..client_requests import TEXT_GENERATION, OnProgress
from ..client_stream import TextStream
from ..client_text import Generation, Prompt, TextOptions
from ..map_window import RESERVED
from .output import console, duration, print_json, safe, weights_note

#: What each flag is as a parameter of the task.
_FLAGS: Final = ("max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop", "repetition_penalty")


def check_unused(options: argparse.Namespace, task: str) -> None:
    """Raises AccelError usage when a flag was given that another task does not take."""
    if given := given_flags(options):
        raise AccelError("usage", f"{given[0]} is for models that write text; this one does {task}", "Leave it out.")


def given_flags(options: argparse.Namespace) -> list[str]:
    """Those for text that were given."""
    names = [name for name in ("stream", "system", "raw", *_FLAGS) if getattr(options, name) not in (None, False)]
    return [f"--{name.replace('_', '-')}" for name in names]


def run(
    client: Client, options: argparse.Namespace, inputs: list[str], params: dict[str, Any], until: float,
    report: OnProgress,
) -> list[Generation]:  # fmt: skip
    """One text after the other; a stream is printed as it comes. Raises AccelError bad-input, JobError."""
    if unknown := sorted(set(params) - set(TextOptions.__annotations__)):
        raise AccelError(
            ErrorCode.BAD_INPUT, f"there is no parameter {unknown[0]} of {TEXT_GENERATION}",
            f"There are {', '.join(name for name in TextOptions.__annotations__ if name not in RESERVED)}.",
        )  # fmt: skip
    given = {name: getattr(options, name) for name in _FLAGS if getattr(options, name) is not None}
    asked: TextOptions = {**params, **given, "on": options.on, "on_progress": report}  # type: ignore[typeddict-item]
    texts = []
    for text in inputs:
        prompt, chat = _prompt(text, options)
        asked["chat"] = params.get("chat", chat)
        asked["timeout"] = max(0.001, until - time.monotonic())
        stream = client.generate(options.model, prompt, stream=True, **asked)
        texts.append(_finished(stream, options))
    return texts


def show(texts: list[Generation], options: argparse.Namespace) -> None:
    if options.json:
        values = [_value(text) for text in texts]
        print_json({"job_id": texts[-1].job_id, "value": values if len(values) > 1 else values[0],
                    "report": texts[-1].report})  # fmt: skip
        return
    for text in texts:
        if not options.stream:
            print(safe_text(text.text))
        console().print(f"[dim]{_summary(text)}[/]")


def _prompt(text: str, options: argparse.Namespace) -> tuple[Prompt, bool | None]:
    if options.system is not None:
        return [{"role": "system", "content": options.system}, {"role": "user", "content": text}], None
    return text, None if options.raw else True


def _finished(stream: TextStream, options: argparse.Namespace) -> Generation:
    with stream:
        for piece in stream:
            if options.stream and options.json:
                print_json({"text": piece})
            elif options.stream:
                print(safe_text(piece), end="", flush=True)
        if options.stream and not options.json:
            print()
        return stream.generation()


def safe_text(text: str) -> str:
    """What a model wrote, without what would steer the terminal."""
    return "".join(_shown(text)) if sys.stdout.isatty() else text


def _shown(text: str) -> Iterator[str]:
    return (letter if letter.isprintable() or letter in "\n\t" else "�" for letter in text)


def _summary(text: Generation) -> str:
    """How much was written, how fast, and what ended it."""
    report = text.report
    writing = report["compute_s"] - report["first_token_s"]
    new = report["counts"]["output_tokens"]
    rate = f", {(new - 1) / writing:.1f} tokens/s after the first" if new > 1 and writing > 0 else ""
    ended = "" if text.finish_reason == "stop" else ", cut off at --max-new-tokens"
    where = f"{safe(report['node_name'])} on {safe(report['backend'])}"
    return (
        f"{text.prompt_tokens} tokens read, {text.completion_tokens} written{rate}{ended}; "
        f"first after {duration(report['first_token_s'])} · {where}{weights_note(report)}"
    )


def _value(text: Generation) -> dict[str, Any]:
    return {
        "generated_text": text.text,
        "token_ids": text.token_ids,
        "finish_reason": text.finish_reason,
        "prompt_tokens": text.prompt_tokens,
        "completion_tokens": text.completion_tokens,
        "seed": text.seed,
    }

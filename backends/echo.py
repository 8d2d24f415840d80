"""A backend that gives back what it gets: for trying a cluster and for tests. It is never chosen by itself.

A model of it is a folder with a `config.json`:

    {"model_type": "echo", "echo": {"work_ms": 5, "load_hold": "/a/folder"}}

`work_ms` is how long a job takes. A job that asks for `hold` (`compute`, `token-3`) waits at that stage until
`<hold_dir>/<hold>.go` appears, having written `<hold>.held`, so that a test can act at an exact moment.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .families.samples import SIZES, text_of
from .interface import BackendError, DeviceInfo, LoadOptions, Output, RunContext, Sample, never_cancelled

_LONGEST_HOLD_S = 60.0
_LOOK_EVERY_S = 0.005
_MOST_TOKENS = 1_000_000


class EchoModel:
    """Answers `{"echo": inputs}` after `work_ms`; asked for `tokens`, it gives out so many, one every `token_ms`."""

    task = "echo"
    precision = "none"
    memory_bytes = 0

    def __init__(self, work_ms: float) -> None:
        self._work_ms = work_ms
        self.details: dict[str, Any] = {"implementation": "echo", "device": "none", "library": "echo"}

    def run(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Output:
        began = time.perf_counter()
        self._hold(params, "compute", context)
        _wait(time.monotonic() + _milliseconds(params.get("work_ms", self._work_ms)) / 1000, context.cancelled)
        value = {"echo": inputs, "process": os.getpid(), **self._stream(params, context)}
        return Output(
            value,
            {"preprocess_s": 0.0, "compute_s": time.perf_counter() - began, "postprocess_s": 0.0},
            {"output_tokens": len(value.get("token_ids", ()))},
        )

    def samples(self) -> list[Sample]:
        return [Sample(text_of(size), {}, size) for size in SIZES]

    def close(self) -> None:
        pass

    def _stream(self, params: dict[str, Any], context: RunContext) -> dict[str, Any]:
        """Token n has the id n and the text `n `, so that a test sees whether one is missing or came twice."""
        count = params.get("tokens", 0)
        if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
            raise BackendError("bad-input", f"tokens are from 0 to {_MOST_TOKENS}", "Leave it out.")
        if not count:
            return {}
        ids = list(context.prefix.token_ids)
        while len(ids) < count:
            place = len(ids)
            self._hold(params, f"token-{place}", context)
            _wait(time.monotonic() + _milliseconds(params.get("token_ms", 0)) / 1000, context.cancelled)
            context.emit(place, [place], f"{place} ")
            ids.append(place)
        return {"token_ids": ids, "generated_text": "".join(f"{each} " for each in ids)}

    def _hold(self, params: dict[str, Any], name: str, context: RunContext) -> None:
        if params.get("hold") == name:
            hold(name, Path(str(params.get("hold_dir", "."))), context.cancelled)


class EchoBackend:
    name = "echo"

    def probe(self) -> DeviceInfo:
        return DeviceInfo(self.name, "none", 0, "echo", ("none",), ("echo",), "none")

    def load(self, folder: Path, options: LoadOptions) -> EchoModel:
        settings = json.loads((folder / "config.json").read_text()).get("echo", {})
        options.progress("loading", 0, 1)
        if load_hold := settings.get("load_hold"):
            hold("load", Path(load_hold), never_cancelled)
        return EchoModel(float(settings.get("work_ms", 0)))


def hold(name: str, folder: Path, cancelled: Callable[[], bool]) -> None:
    """Waits, at most a minute, until `<name>.go` appears in `folder`."""
    (folder / f"{name}.held").touch()
    end = time.monotonic() + _LONGEST_HOLD_S
    while not (folder / f"{name}.go").exists() and time.monotonic() < end:
        _check(cancelled)
        time.sleep(_LOOK_EVERY_S)


def _milliseconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 3_600_000:
        raise BackendError(
            "bad-input", "work_ms and token_ms are numbers of milliseconds up to an hour", "Leave it out."
        )
    return float(value)


def _wait(until: float, cancelled: Callable[[], bool]) -> None:
    while (left := until - time.monotonic()) > 0:
        _check(cancelled)
        time.sleep(min(left, 0.02))


def _check(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise BackendError("cancelled", "the job was cancelled")

"""Derived forms of a model: made once by a process of its own, kept by content, engine, precision and versions."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from uuid import uuid4

from .child import run_module
from .interface import BackendError, LoadOptions

log = logging.getLogger(__name__)

#: What openvino-genai looks for in a folder.
MODEL_FILE: Final = "openvino_model.xml"
#: The input of a model with a state that says which of several outputs goes on.
CHOSEN: Final = "beam_idx"
_TIMEOUT_S: Final = 900.0
_VERSIONED: Final = ("openvino", "optimum-intel", "transformers")
_MADE_BY: Final = {"int8": ("nncf",), "int4": ("nncf",)}


def ensure_converted(folder: Path, task: str, form: str, options: LoadOptions) -> Path:
    """The folder with the model for OpenVINO in a form of `precision.form_of`.

    Raises:
        BackendError: conversion-failed, backend-missing.
    """
    target, exported = (options.cache / _key(options.key, task, each) for each in (form, "f32"))
    if target.exists():
        return target
    options.progress("converting", 0, 1)
    aside = options.cache / f"{target.name}.{uuid4().hex[:8]}.tmp"
    aside.mkdir(parents=True)
    try:
        _run(folder, aside, form, exported)
        if not target.exists():
            os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    options.progress("converting", 1, 1)
    return target


def _run(folder: Path, target: Path, form: str, exported: Path) -> None:
    """A form in f32 that was `exported` before is made smaller; else the model is exported first."""
    arguments = [str(folder), str(target), form, *([str(exported)] if exported.exists() else [])]
    try:
        status, output = run_module("convert", *arguments, timeout_s=_TIMEOUT_S, with_errors=True)
    except TimeoutError:
        raise BackendError("conversion-failed", f"converting took over {_TIMEOUT_S:.0f} s") from None
    said = output.decode(errors="replace")
    if status or not any(target.glob("*.xml")):
        log.warning("converting failed:\n%s", said[-4000:])
        last = (said.strip().splitlines() or [f"status {status}"])[-1]
        raise BackendError("conversion-failed", f"converting to OpenVINO failed: {last[:300]}", "The log says more.")


def derived_prefix(content: str) -> str:
    """How the folder names of a model's converted forms begin; `content` is its key in `LoadOptions`."""
    return f"openvino-{hashlib.sha256(content.encode()).hexdigest()[:24]}-"


def _key(content: str, task: str, form: str) -> str:
    """A folder name that changes with whatever changes the converted form."""
    versions = " ".join(f"{name}={_version(name)}" for name in (*_VERSIONED, *_MADE_BY.get(form, ())))
    return derived_prefix(content) + hashlib.sha256(f"{task} {form} {versions}".encode()).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"

"""Safetensors out of PyTorch's pickles, made by a throwaway process: see `unpickle` for what keeps it in."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from .child import run_module, told
from .interface import BackendError, OnProgress, no_progress

_TIMEOUT_S: Final = 1200.0
_PIECE: Final = 1 << 20
_WEIGHTS: Final = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".pkl", ".safetensors")


def convert_pickles(folder: Path, target: Path, progress: OnProgress = no_progress) -> str:
    """Makes `target` a folder like `folder` with its weights as safetensors; the SHA-256 of what they were, in hex.

    Raises:
        BackendError: not-a-model when there are no pickles or there are safetensors already; unsafe-model, too-large.
    """
    sources = sorted(path for path in folder.glob("pytorch_model*.bin") if path.is_file())
    if any(folder.glob("*.safetensors")):
        raise BackendError("not-a-model", f"{folder.name} has safetensors already", "Add it without --convert.")
    if not sources:
        raise BackendError("not-a-model", f"{folder.name} has no pytorch_model.bin", "Nothing else is converted.")
    progress("converting", 0, 1)
    shutil.copytree(folder, target, ignore=_ignored)
    _run(folder, target)
    progress("converting", 1, 1)
    return _digest(sources)


def _ignored(_: str, names: list[str]) -> list[str]:
    """Other forms of the weights stay behind, and what is hidden."""
    return [name for name in names if name.startswith(".") or name.endswith((*_WEIGHTS, ".bin.index.json"))]


def _run(folder: Path, target: Path) -> None:
    places = str(folder.resolve()), str(target.resolve())
    try:
        status, output = run_module("unpickle", *places, timeout_s=_TIMEOUT_S, with_errors=False)
    except TimeoutError:
        raise BackendError("unsafe-model", f"reading its weights took over {_TIMEOUT_S:.0f} s") from None
    answered = told(output)
    if status or "tensors" not in answered:
        message = answered.get("message", f"reading its weights ended with status {status}")
        raise BackendError(
            str(answered.get("code", "unsafe-model")), str(message), "Ask its publisher for safetensors."
        )


def _digest(sources: list[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        with source.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()

"""The process that makes a model with random weights: the family's name in, a Hugging Face folder out.

    python -m ipfs_accel_node.backends.make FAMILY FOLDER [--size tiny|reference] [--seed N]

It needs no network and has none, and is limited in memory and time. What went wrong is told in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from .child import end_with_parent, leave_the_network, limit
from .making import TEXT, make_bert_model, make_sentence_model, make_text_model
from .making_media import make_media_model
from .making_shapes import SIZES, TINY

_MEMORY: Final = 6 << 30
_CPU_S: Final = 900


def make_model(folder: Path, family: str, size: str = TINY, seed: int = 0) -> Path:
    """A model of one of `making_shapes.MADE`, with all that belongs to it, in this process."""
    if family in TEXT:
        return make_text_model(folder, family, seed, size)
    if family in ("bert", "sentence"):
        return (make_bert_model if family == "bert" else make_sentence_model)(folder, seed, size)
    return make_media_model(folder, family, seed, size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("family")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default=TINY)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    leave_the_network()  # first: a process with threads may not
    end_with_parent()
    try:
        import torch  # before the limits: a library of hundreds of megabytes is no fault of the model's
        import transformers

        transformers.logging.set_verbosity_error()
        torch.set_num_threads(1)
        with suppress(OSError, ValueError):  # no system but Linux says what is taken already
            limit(_MEMORY, _CPU_S)
        make_model(options.folder, options.family, options.size, options.seed)
    except Exception as error:
        sys.stdout.write(json.dumps({"code": _code(error), "message": f"{type(error).__name__}: {error}"[:300]}))
        sys.exit(1)


def _code(error: Exception) -> str:
    """By the words where libraries have no exceptions of their own for it."""
    said = str(error).lower()
    if isinstance(error, ImportError):
        return "backend-missing"
    if "no space left" in said or "file too large" in said:
        return "disk-full"
    return "out-of-memory" if isinstance(error, MemoryError) or "alloc" in said else "internal"


if __name__ == "__main__":
    main()

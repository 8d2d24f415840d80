"""The converting process: a checked Hugging Face folder in, an OpenVINO model of the same precision out.

    python -m ipfs_accel_node.backends.convert FOLDER TARGET --task feature-extraction

It is bounded in memory, and whatever happens in it happens to no worker.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import threading
from pathlib import Path

from .conversion import MODEL_FILE
from .interface import BackendError
from .loading import inspect

#: task → the class of optimum-intel that exports it.
_CLASSES = {"feature-extraction": "OVModelForFeatureExtraction", "text-generation": "OVModelForCausalLM"}
_MEMORY_FACTOR = 8
_MEMORY_BASE = 12 << 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--task", required=True, choices=sorted(_CLASSES))
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        facts = inspect(options.folder)
    except BackendError as error:
        sys.exit(str(error))
    bound = facts.memory_bytes * _MEMORY_FACTOR + _MEMORY_BASE
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    _convert(options.folder, options.target, options.task)


def _end_with_parent() -> None:
    """Nobody writes to standard input: that it ends means that whoever asked for this is gone."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _convert(folder: Path, target: Path, task: str) -> None:
    import openvino as ov
    from optimum import intel

    cls = getattr(intel, _CLASSES[task])
    model = cls.from_pretrained(
        str(folder), export=True, compile=False, load_in_8bit=False, trust_remote_code=False, local_files_only=True
    )
    ov.save_model(model.model, target / MODEL_FILE, compress_to_fp16=False)


if __name__ == "__main__":
    main()

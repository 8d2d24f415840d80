"""What a model's folder says of its own weights: `weights.json`, `{"weights": "random", …}`.

It is a file like any other, so it is part of the CID and goes wherever the model goes. Only that its weights are
random is ever said by it: nobody can praise a model so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from .interface import BackendError
from .loading import inside

RANDOM: Final = "random"
_FILE: Final = "weights.json"
_MOST_BYTES: Final = 4096
_WARNING: Final = "Random weights, made locally: what this model computes means nothing.\n"


def mark_random(folder: Path, **made: Any) -> None:
    """Says for machines and for people that the weights are random; `made` is how, as JSON."""
    (folder / _FILE).write_text(json.dumps({"weights": RANDOM, **made}, indent=1))
    (folder / "README.md").write_text(_WARNING)


def weights_of(folder: Path) -> str:
    """`random` for a folder that says so of itself in at most 4 KiB, else an empty text."""
    try:
        path = inside(folder, _FILE)
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as file:
            said = file.read(_MOST_BYTES + 1)
        document = json.loads(said) if len(said) <= _MOST_BYTES else None
    except (BackendError, OSError, ValueError, RecursionError, RuntimeError):
        return ""
    return RANDOM if isinstance(document, dict) and document.get("weights") == RANDOM else ""

"""One thing that `doctor` looks at, and what came of it. Imports nothing that may be missing."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...protocols.errors import ErrorCode, docs_of


@dataclass(frozen=True)
class Check:
    """`code` is a stable code of `docs/errors.md` where it is not in order; only what is `required` fails it all."""

    name: str
    ok: bool
    required: bool
    detail: str
    code: str = ""
    fix: str = ""

    @property
    def mark(self) -> str:
        return "ok" if self.ok else "no" if self.required else "–"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "docs": docs_of(self.code) if self.code else ""}


def nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that would have to take it."""
    while not folder.exists():
        folder = folder.parent
    return folder


def writable(what: str, folder: Path, shown: Path) -> Check:
    if os.access(folder, os.W_OK | os.X_OK):
        return Check(what, True, True, str(shown))
    why = f"{folder} is not this user's to write"
    return Check(what, False, True, why, ErrorCode.PERMISSION_DENIED, f"Check who owns {folder}.")

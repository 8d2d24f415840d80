"""What a folder is good for, told to whoever adds it or asks about it: its task, or why it cannot be run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..backends.interface import BackendError
from ..backends.loading import inspect


class Verdict(NamedTuple):
    """`task` is empty for what cannot be run; `why_not` says the reason then."""

    task: str = ""
    why_not: str = ""


def judge(folder: Path) -> Verdict:
    try:
        return Verdict(task=inspect(folder).task)
    except BackendError as error:
        return Verdict(why_not=str(error))

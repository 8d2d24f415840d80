"""What a folder is good for, told to whoever adds it or asks about it: its task, or why it cannot be run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..backends.interface import BackendError
from ..backends.loading import inspect
from ..protocols.errors import AccelError, ErrorCode


class Verdict(NamedTuple):
    """`task` is empty for what cannot be run; `why_not` says the reason then."""

    task: str = ""
    why_not: str = ""


def judge(folder: Path) -> Verdict:
    try:
        return Verdict(task=inspect(folder).task)
    except BackendError as error:
        return Verdict(why_not=str(error))


def check_folder(folder: Path, *, anyway: bool = False) -> None:
    """Looks at a folder before it is copied in; what another node or a later version may run is no mistake.

    Args:
        anyway: add it whatever it is.

    Raises:
        AccelError: not-a-model, unsafe-model.
    """
    if anyway or not os.path.isdir(folder):  # noqa: PTH112 — says no to what is no path at all, too
        return  # the store says what is wrong with a path
    try:
        inspect(folder)
    except BackendError as error:
        if error.code != ErrorCode.UNSUPPORTED_TASK:
            hint = f"{error.hint} To add it all the same: --anyway".strip()
            raise AccelError(error.code, f"{folder}: {error.message}", hint) from None

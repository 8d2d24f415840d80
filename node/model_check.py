"""Whether a folder is a model that somebody could run, looked at before it is copied in."""

from __future__ import annotations

import os
from pathlib import Path

from ..backends.interface import BackendError
from ..backends.loading import inspect
from ..protocols.errors import AccelError, ErrorCode

#: A newer version, or another node, may run what this one cannot.
_ONLY_NOTED = ErrorCode.UNSUPPORTED_TASK


def check_folder(folder: Path, *, anyway: bool = False) -> str:
    """What a person should know of a folder that is added; empty when it can be run here.

    Args:
        anyway: add it whatever it is.

    Raises:
        AccelError: not-a-model, unsafe-model.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 — says no to what is no path at all, too
        return ""  # the store says what is wrong with it
    try:
        inspect(folder)
    except BackendError as error:
        if error.code == _ONLY_NOTED or anyway:
            return f"{error.message}; it is kept and passed on, not run"
        raise AccelError(
            error.code, f"{folder}: {error.message}", f"{error.hint} To add it all the same: --anyway".strip()
        ) from None
    return ""

"""One process at a time writes a store: a running node, or a command while none runs."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from ...protocols.errors import AccelError, ErrorCode
from .disk import coded_errors


class StoreLock:
    """Holds the store until it is left, or until the process ends in whatever way.

    Raises:
        AccelError: already-running, with the process that holds it; permission-denied.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "lock"
        self._descriptor = -1

    def __enter__(self) -> StoreLock:
        with coded_errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._held(descriptor) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def _held(self, descriptor: int) -> AccelError:
        holder = _noted(descriptor)
        os.close(descriptor)
        return AccelError(
            ErrorCode.ALREADY_RUNNING,
            f"process {holder or '?'} uses {self._path.parent}",
            "Stop that node, or give this one its own --data-dir.",
        )


def holder_of(root: Path) -> str:
    """The process that holds the store there, `?` where it did not say; empty when none does. Leaves it as it is."""
    try:
        descriptor = os.open(root / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return ""
    except BlockingIOError:
        return _noted(descriptor) or "?"
    finally:
        os.close(descriptor)


def _noted(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode(errors="replace")

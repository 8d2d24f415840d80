"""How much memory loading moved: what was allocated, and what of the weights' own files is mapped and touched.

The memory that a process holds in all says less: an allocator keeps what was freed, and libraries are mapped too.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/smaps")


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc 2.33 and later: https://man7.org/linux/man-pages/man3/mallinfo.3.html"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


class Footprint:
    """Counts from where it is made. `files` are those that an engine may map its weights from."""

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._files = {str(file.resolve()) for file in files}
        gc.collect()  # what was unloaded goes now, and not in between
        self._before = self._taken()

    def moved(self) -> int | None:
        """Bytes since then; None where the system does not tell, or where more was given back meanwhile."""
        now = self._taken()
        if now is None or self._before is None or now < self._before:
            return None
        return now - self._before

    def _taken(self) -> int | None:
        allocated = _allocated()
        return None if allocated is None else allocated + _mapped(self._files)


def give_back() -> None:
    """Has the C library return what was freed, which it may keep: after a model was made smaller, most of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _allocated() -> int | None:
    """What the C library has given out and not got back."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    ask.restype = _MallInfo
    info = ask()
    return int(info.uordblks) + int(info.hblkhd)


def _mapped(files: set[str]) -> int:
    """Bytes of those files that are in this process's memory."""
    if not files:
        return 0
    total, counts = 0, False
    try:
        with _MAPS.open() as lines:
            for line in lines:
                first, _, rest = line.partition(" ")
                if not first.endswith(":"):
                    counts = rest.rstrip("\n").split(maxsplit=4)[-1] in files
                elif counts and first == "Rss:":
                    total += int(rest.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        return total
    return total

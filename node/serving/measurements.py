"""What was measured on this machine, kept on disk; and the lock that lets one node of it measure at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ...protocols.advert import Speed
from ...protocols.work import Work

log = logging.getLogger(__name__)

_MOST_ENTRIES: Final = 2000


@dataclass(frozen=True)
class Key:
    """What a measurement holds for. `versions` names the library and the device."""

    cid: str
    backend: str
    precision: str
    threads: int
    versions: str

    def __str__(self) -> str:
        return "|".join((self.cid, self.backend, self.precision, str(self.threads), self.versions))


@dataclass(frozen=True)
class Measurement:
    """A model's speed on one backend, with the seconds and bytes of memory that loading it took.

    `precision` is what really ran; `taken_at` is in seconds since 1970.
    """

    speed: Speed
    precision: str
    load_s: float
    memory_bytes: int
    taken_at: float


class Measurements:
    """One small JSON file, written whole and renamed. A damaged one is begun anew; the oldest entries go first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Measurement] = dict(_readable(_read(path)))

    def get(self, key: Key) -> Measurement | None:
        return self._entries.get(str(key))

    def put(
        self, key: Key, speed: Speed, *, precision: str, load_s: float, memory_bytes: int, now: float | None = None
    ) -> Measurement:
        """Keeps a measurement. A disk that cannot be written costs the next start a measurement, no more."""
        taken_at = time.time() if now is None else now
        measurement = self._entries[str(key)] = Measurement(speed, precision, load_s, memory_bytes, taken_at)
        while len(self._entries) > _MOST_ENTRIES:
            del self._entries[min(self._entries, key=lambda each: self._entries[each].taken_at)]
        try:
            self._write()
        except OSError as error:
            log.warning("measurements are not kept: %s", error)
        return measurement

    def _write(self) -> None:
        document = {"version": 1, "entries": {key: asdict(each) for key, each in self._entries.items()}}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        aside.write_text(json.dumps(document, indent=1, sort_keys=True))
        aside.replace(self._path)


class MachineLock:
    """One holder among all processes of this user on this machine; the kernel frees it when its holder dies."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(tempfile.gettempdir()) / f"ipfs-accel-node-{os.getuid()}-measuring.lock"
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Never waits. Where the lock file cannot be opened at all, there is nobody to keep apart from."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
        except OSError as error:
            log.warning("measuring without the lock of this machine: %s", error)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
        entries = document["entries"] if document["version"] == 1 else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("measuring anew: %s cannot be read (%s)", path, error)
        return {}
    return entries if isinstance(entries, dict) else {}


def _readable(entries: dict[str, Any]) -> list[tuple[str, Measurement]]:
    kept = []
    for key, fields in entries.items():
        try:
            speed = Speed(**fields["speed"])
            speed.seconds(Work(1.0, 1.0))
            kept.append((key, Measurement(**{**fields, "speed": speed})))
        except (KeyError, TypeError):
            log.warning("a damaged measurement is left out: %s", key)
    return kept

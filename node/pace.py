"""How fast bytes move and how long they will take still, told beside progress. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque
from typing import Final

#: The rate is that of the last seconds, so that it follows what really happens.
_WINDOW_S: Final = 5.0
_LEAST_S: Final = 0.2
_MOST_SAMPLES: Final = 64


class Pace:
    """One transfer's. A state other than the last one begins anew."""

    def __init__(self) -> None:
        self._state = ""
        self._samples: deque[tuple[float, int]] = deque(maxlen=_MOST_SAMPLES)

    def note(self, state: str, done: int, total: int, now: float) -> str:
        """Like `148.2 MB/s, 12 s left`; empty while that is not known."""
        if state != self._state:
            self._state = state
            self._samples.clear()
        while self._samples and now - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()
        self._samples.append((now, done))
        since, before = self._samples[0]
        if now - since < _LEAST_S or done <= before or total < done:
            return ""
        rate = (done - before) / (now - since)
        return f"{rate / 1e6:.1f} MB/s, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"

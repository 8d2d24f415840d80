"""A bounded pace for what one peer may say: what comes faster waits in its window, and then at its sender."""

from __future__ import annotations

import trio


class Pace:
    """`rate` bytes a second, after the first `at_once`."""

    def __init__(self, rate: float, at_once: float) -> None:
        self._rate = rate
        self._at_once = at_once
        self._level = 0.0
        self._counted_at = trio.current_time()

    async def wait_for(self, size: int) -> None:
        """Counts `size` bytes that came, and returns when more may come."""
        now = trio.current_time()
        self._level = max(0.0, self._level - (now - self._counted_at) * self._rate) + size
        self._counted_at = now
        if self._level > self._at_once:
            await trio.sleep((self._level - self._at_once) / self._rate)

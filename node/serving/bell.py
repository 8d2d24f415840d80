"""Tells every waiting task that something changed; each looks for itself whether it is what it waits for."""

from __future__ import annotations

import trio


class Bell:
    """Waiting and ringing without a condition: `while not …: await bell.wait()` misses no ring in between."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self) -> None:
        await self._rung.wait()

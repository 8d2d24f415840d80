"""Tells every waiting task that something changed; each looks for itself whether it is what it waits for."""

from __future__ import annotations

import trio


class Bell:
    """Waiting and ringing without a condition: `while not …: await bell.wait()` misses no ring in between."""

    def __init__(self) -> None:
        self._awaited: trio.Event | None = None

    def ring(self) -> None:
        if self._awaited is not None:
            self._awaited.set()
            self._awaited = None

    async def wait(self) -> None:
        if self._awaited is None:
            self._awaited = trio.Event()
        await self._awaited.wait()

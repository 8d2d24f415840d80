"""Whether a node takes jobs: one state that its adverts, its doors and its own choosing all go by.

ready ◄─► paused     by its owner; what runs is finished, a restarted node is ready again
  └────────┴─► draining     it stops
"""

from __future__ import annotations

from collections.abc import Callable

from ..protocols.errors import AccelError, ErrorCode

READY, PAUSED, DRAINING = "ready", "paused", "draining"
#: What to do about a paused node.
RESUME = "Its owner ends that: ipfs-accel-node resume"


class Availability:
    """One of it a node. `on_change` is told of every change of `state`."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.state = READY
        self._on_change = on_change

    @property
    def is_paused(self) -> bool:
        return self.state == PAUSED

    def pause(self) -> None:
        """Computes no new jobs from now on. Raises AccelError draining."""
        self._become(PAUSED)

    def resume(self) -> None:
        """Computes again. Raises AccelError draining."""
        self._become(READY)

    def drain(self) -> None:
        """Takes no new job at all, for good."""
        self.state = DRAINING
        self._on_change()

    def check_takes(self) -> None:
        """Raises AccelError draining. A paused node still passes its owner's jobs on to peers."""
        if self.state == DRAINING:
            raise AccelError(ErrorCode.DRAINING, "this node is stopping and takes no new jobs")

    def check_computes(self) -> None:
        """Raises AccelError draining, paused."""
        self.check_takes()
        if self.is_paused:
            raise AccelError(ErrorCode.PAUSED, "this node is paused and computes no new jobs", RESUME)

    def _become(self, state: str) -> None:
        self.check_takes()
        if state != self.state:
            self.state = state
            self._on_change()

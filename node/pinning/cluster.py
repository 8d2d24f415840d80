"""The parts that make the pins of a cluster, put together for one node."""

from __future__ import annotations

from pathlib import Path

import trio

from ..catalogue import Catalogue
from ..content.store import ModelStore
from ..mesh.identity import Identity
from ..mesh.mesh import Mesh
from .book import PinBook
from .exchange import PinExchange
from .keeper import PinKeeper
from .members import Members


class ClusterPins:
    """Keeps the book, tells and hears of changes, and holds what is to be held here."""

    def __init__(
        self,
        path: Path,
        identity: Identity,
        cluster_key: bytes,
        grace_s: float,
        store: ModelStore,
        catalogue: Catalogue,
        mesh: Mesh,
    ) -> None:
        """`grace_s` is how long a holder may be gone before another takes over."""
        self.book = PinBook(path, cluster_key=cluster_key, signing_key=identity.seed)
        self.members = Members(trio.current_time, grace_s)
        self.keeper = PinKeeper(
            identity.peer_id,
            store,
            self.book,
            self.members,
            catalogue.ensure_here,
            grace_s=grace_s,
            unseen=lambda: bool(mesh.remembered() - self.members.views().keys() - {identity.peer_id}),
        )
        self.exchange = PinExchange(mesh, self.book, self.members, self.keeper.state)
        self.exchange.on_state = self.keeper.wake

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.exchange.run)
            nursery.start_soon(self.keeper.run)

"""Says what this node can do: builds its advert and publishes it on change and every few seconds."""

from __future__ import annotations

import logging
import time

import trio

from ..protocols.advert import Advert, ModelInfo
from .availability import Availability
from .catalogue import Catalogue
from .mesh.mesh import Mesh
from .serving.service import ServingService

log = logging.getLogger(__name__)

#: A change is told after this pause, so that many changes at once make one advert.
_COALESCE_S = 0.25
INTERVAL_S = 10.0


class Advertiser:
    """Publishes this node's advert. `changed()` may be called from anywhere on the event loop."""

    def __init__(
        self, node_name: str, availability: Availability, catalogue: Catalogue, serving: ServingService, mesh: Mesh
    ) -> None:
        self._node_name = node_name
        self._availability = availability
        self._catalogue = catalogue
        self._serving = serving
        self._mesh = mesh
        # A restarted node must not be taken for an old advert of itself, whatever its clock did meanwhile.
        self._incarnation = time.time_ns()
        self._counter = 0
        self._change = trio.Event()

    def changed(self) -> None:
        self._change.set()

    async def run(self) -> None:
        while True:
            self._change = trio.Event()
            await self.publish()
            with trio.move_on_after(INTERVAL_S):
                await self._change.wait()
            await trio.sleep(_COALESCE_S)

    async def publish(self) -> None:
        self._counter += 1
        await self._mesh.publish(self._advert())

    def _advert(self) -> Advert:
        models = tuple(
            ModelInfo(model.cid_bytes, model.name or "", model.size, self._catalogue.task_of(model))
            for model in self._catalogue.here()
        )
        order = {model.cid: place for place, model in enumerate(models)}
        offers = sorted(self._serving.offers(), key=lambda offer: order.get(offer.cid, len(order)))
        return Advert(
            incarnation=self._incarnation,
            counter=self._counter,
            node_name=self._node_name,
            state=self._availability.state,
            addresses=tuple(self._mesh.addresses),
            backends=tuple(self._serving.backend_states()),
            models=models,
            offers=tuple(offers),
            more=False,
        )

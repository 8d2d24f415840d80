"""Who has a model: nodes of the cluster, and peers of IPFS that the daemon finds in the DHT.

Whoever asks the DHT tells it which model is wanted. So it is asked when a person asks, and never for a gated model.
"""

from __future__ import annotations

from typing import Any

from ..protocols.errors import AccelError
from .catalogue import Catalogue
from .config import Config
from .content.cid import format_cid
from .content.kubo import Kubo
from .content.kubo_address import parse_kubo
from .content.kubo_routing import find_providers
from .identity_card import IdentityCard
from .known_model import KnownModel
from .mesh.mesh import Mesh
from .origins import origin_at


class ProviderFinder:
    """Finds who has a model, for one node."""

    def __init__(self, config: Config, card: IdentityCard, catalogue: Catalogue, mesh: Mesh) -> None:
        self._address = config.kubo
        self._authorization = config.kubo_auth
        self._card = card
        self._catalogue = catalogue
        self._mesh = mesh

    async def providers(self, text: str) -> dict[str, Any]:
        """The nodes that have a model and, as `ipfs`, the peers outside; None where nobody outside was asked.

        A daemon that fails is told there, as `error`. It takes about 15 seconds at most beside what `origin_at` takes.
        Raises what `Catalogue.resolve` raises.
        """
        cid = self._catalogue.resolve(text)
        model = self._catalogue.known().get(cid) or KnownModel(cid)
        gated = await self._is_gated(model)
        return {
            "cid": format_cid(cid),
            "name": model.name,
            "gated": gated,
            "nodes": self._nodes(model),
            "ipfs": None if gated or self._address is None else await self._outside(self._address, cid),
        }

    async def _is_gated(self, model: KnownModel) -> bool:
        asked = model.holders or {peer.peer_id for peer in self._mesh.directory.peers() if peer.linked}
        said = await origin_at(self._mesh, asked, model.cid, is_new=model.here is None)
        return said.gated or (model.here is not None and model.here.origin.gated)

    def _nodes(self, model: KnownModel) -> list[dict[str, Any]]:
        here = [(self._card.node, self._card.node_name)] if model.here else []
        peers = [(peer_id, self._mesh.directory.get(peer_id)) for peer_id in sorted(model.holders)]
        named = [*here, *((peer_id, peer.name if peer else "") for peer_id, peer in peers)]
        return [{"node": node, "node_name": name, "here": node == self._card.node} for node, name in named]

    async def _outside(self, address: str, cid: bytes) -> dict[str, Any]:
        try:
            async with Kubo(parse_kubo(address), self._authorization) as kubo:
                found = await find_providers(kubo, cid)
        except AccelError as error:
            return {"kubo": address, "peers": [], "complete": False, "error": error.as_dict()}
        peers = [{"peer_id": each.peer_id, "addresses": list(each.addresses)} for each in found.providers]
        return {"kubo": address, "peers": peers, "complete": found.complete, "error": None}

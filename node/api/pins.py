"""The operations `pin.*` of the local door: this node's own pins, and those of the whole cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.pins import EVERYWHERE, PinChange
from ..catalogue import Catalogue, KnownModel
from ..content.cid import format_cid
from ..content.placement import Part
from ..content.store import StoredModel
from ..exchanges import IncomingCall
from ..identity_card import IdentityCard
from ..pinning.book import PinBook, check_replicas
from ..pinning.keeper import PinKeeper
from ..pinning.members import Members, OwnState, View
from .local import Operation


class PinOperations:
    """What a user says and sees of pins at one running node."""

    def __init__(
        self, card: IdentityCard, catalogue: Catalogue, book: PinBook, members: Members, keeper: PinKeeper
    ) -> None:
        self._card = card
        self._catalogue = catalogue
        self._book = book
        self._members = members
        self._keeper = keeper

    def by_name(self) -> dict[str, Operation]:
        return {"pin.add": self.add, "pin.ls": self.list_pins, "pin.rm": self.remove}

    async def add(self, call: IncomingCall) -> dict[str, Any]:
        """Pins a model here, or with `cluster` on `minimum` to `maximum` nodes; a maximum of 0 means all."""
        text = _model(call)
        if not _flag(call, "cluster"):
            return self._own(await self._catalogue.pin(text, on_progress=call.progress))
        minimum, maximum = _number(call, "minimum", 1), _number(call, "maximum", EVERYWHERE)
        check_replicas(minimum, maximum)
        model = self._known(text)
        await self._book.pin(model.cid, name=model.name[:100], size=model.size, minimum=minimum, maximum=maximum)
        return self._described([model.cid])[0]

    async def remove(self, call: IncomingCall) -> dict[str, Any]:
        text = _model(call)
        if not _flag(call, "cluster"):
            return self._own(await self._catalogue.unpin(text))
        cid = self._resolve(text)
        pin = await self._book.unpin(cid)
        (told,) = self._described([cid])
        return {**told, "name": told["name"] or pin.name, "size": pin.size}

    async def list_pins(self, call: IncomingCall) -> list[dict[str, Any]]:  # noqa: ARG002
        """Those of this node and those of the cluster."""
        own = [model.cid_bytes for model in self._catalogue.here() if model.pinned]
        shared = [pin.cid for pin in self._book.pins.pins()]
        return self._described(dict.fromkeys((*own, *shared)))

    def _resolve(self, text: str) -> bytes:
        """A pin has a name too, when nobody who holds the model is here."""
        named = [pin.cid for pin in self._book.pins.pins() if pin.name == text]
        try:
            return self._catalogue.resolve(text)
        except AccelError:
            if len(named) != 1:
                raise
            return named[0]

    def _known(self, text: str) -> KnownModel:
        cid = self._catalogue.resolve(text)
        model = self._catalogue.known().get(cid)
        if model is None:
            raise AccelError(
                ErrorCode.UNKNOWN_MODEL,
                f"nobody here has {format_cid(cid)}",
                "A node that has it must be linked: see `ipfs-accel-node model ls`.",
            )
        return model

    def _own(self, stored: StoredModel) -> dict[str, Any]:
        return self._described([stored.cid_bytes])[0]

    def _described(self, cids: Iterable[bytes]) -> list[dict[str, Any]]:
        """What is known of everything is looked at once, as there may be thousands of pins."""
        known, own, views = self._catalogue.known(), self._keeper.state(), self._members.views()
        return [self._one(cid, known.get(cid), own, views) for cid in cids]

    def _one(self, cid: bytes, known: KnownModel | None, own: OwnState, views: dict[str, View]) -> dict[str, Any]:
        pin, stored = self._book.pins.get(cid), known.here if known else None
        return {
            "cid": format_cid(cid),
            "name": (known.name if known else "") or (pin.name if pin else ""),
            "size": known.size if known else pin.size if pin else 0,
            "pinned": stored is not None and stored.pinned,
            "cluster": self._of_cluster(pin, own, views) if pin else None,
        }

    def _of_cluster(self, pin: PinChange, own: OwnState, views: dict[str, View]) -> dict[str, Any]:
        """Who is to hold it and who does, as far as this node knows."""
        names = {self._card.node: self._card.node_name}
        parts = {self._card.node: (own.parts.get(pin.cid, Part.NONE), self._keeper.percent(pin.cid))}
        for peer, view in views.items():
            names[peer] = view.name
            percent = view.percent if view.fetching == pin.cid else None
            parts[peer] = (view.parts.get(pin.cid, Part.NONE), percent)
        told = [
            {"node": node, "node_name": names[node], "state": part.name.lower(), "percent": percent}
            for node, (part, percent) in parts.items()
        ]
        holders = [each for each in told if each["state"] == "holds"]
        trouble = self._keeper.trouble(pin.cid)
        return {
            "replicas": [pin.minimum, pin.maximum or None],
            "wanted": [{"node": node, "node_name": names.get(node, "")} for node in self._keeper.wanted(pin.cid)],
            "holders": holders,
            "others": [each for each in told if each["state"] in ("fetching", "unable")],
            "enough": len(holders) >= (pin.minimum if pin.maximum else len(parts)),
            "changed_at": pin.time / 1e6,
            "changed_by": self._book.pins.author_of(pin.cid),
            "error": trouble.as_dict() if trouble else None,
        }


def _model(call: IncomingCall) -> str:
    model = call.arguments.get("model") if isinstance(call.arguments, dict) else None
    if not isinstance(model, str) or not model:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method} needs 'model'")
    return model


def _flag(call: IncomingCall, name: str) -> bool:
    return call.arguments.get(name) is True


def _number(call: IncomingCall, name: str, otherwise: int) -> int:
    value = call.arguments.get(name)
    if value is None:
        return otherwise
    return value if type(value) is int else -1

"""What the peers that have a model say of it, so that one which is gated there is gated here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

import trio

from ..protocols.errors import AccelError
from .content.store import Origin
from .mesh.mesh import Mesh

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_LONGEST: Final = 512


async def origin_at(mesh: Mesh, peer_ids: Iterable[str], cid: bytes, *, is_new: bool) -> Origin:
    """Where a model came from, by the linked ones of these peers.

    It is gated when any of them says so. One that `is_new` here is so too when some do not answer and nobody says
    anything: what may be gated must not leave the cluster by way of this node.
    """
    told: list[Origin] = []
    silent: list[str] = []

    async def ask(peer_id: str) -> None:
        try:
            answer = await _ask(mesh, peer_id, cid)
        except AccelError as error:
            log.info("%s does not say where a model came from: %s", peer_id, error)
            silent.append(peer_id)
        else:
            told.extend([answer] if answer else [])

    async with trio.open_nursery() as nursery:
        for peer_id in peer_ids:
            nursery.start_soon(ask, peer_id)
    return _joined(told) if told else Origin(gated=is_new and bool(silent))


async def _ask(mesh: Mesh, peer_id: str, cid: bytes) -> Origin | None:
    """None from a peer that has no such model."""
    link = mesh.link(peer_id)
    if link is None:
        return None
    return _read(await link.channel.call("origin", {"model": cid}, timeout=_TIMEOUT_S))


def _read(answer: Any) -> Origin | None:
    """What does not say plainly that a model is open is taken for a gated one."""
    if answer is None:
        return None
    fields = answer if isinstance(answer, dict) else {}
    origin, license_name = (str(fields.get(key) or "")[:_LONGEST] for key in ("origin", "license"))
    return Origin(origin, license_name, fields.get("gated") is not False)


def _joined(told: list[Origin]) -> Origin:
    origin = next((each.origin for each in told if each.origin), "")
    license_name = next((each.license for each in told if each.license), "")
    return Origin(origin, license_name, any(each.gated for each in told))

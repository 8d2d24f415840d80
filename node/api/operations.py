"""The control operations of the local door: what each takes and gives is said in `docs/protocol.md`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ... import __version__
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.sealing import cluster_id, encode_token
from ..availability import Availability
from ..catalogue import Catalogue, KnownModel
from ..config import Config
from ..content.cid import format_cid, parse_cid
from ..content.profiles import find_profile
from ..content.store import Origin, StoredModel
from ..exchanges import IncomingCall
from ..identity_card import IdentityCard
from ..job import JobCounters
from ..judging import check_folder
from ..mesh.directory import Peer
from ..mesh.mesh import Mesh
from ..running import RunningJobs
from ..serving.service import ServingService
from ..setting_values import peers
from .local import Operation

_LOOK_EVERY_S = 0.05
_TELL_EVERY_S = 5.0
_LONGEST_WAIT_S = 30 * 86_400.0
_LONGEST_ORIGIN = 512
_MOST_ADDRESSES = 32


class Operations:
    """Shows and changes one running node."""

    def __init__(
        self,
        config: Config,
        card: IdentityCard,
        cluster_key: bytes,
        catalogue: Catalogue,
        serving: ServingService,
        mesh: Mesh,
        counters: JobCounters,
        availability: Availability,
        running: RunningJobs,
    ) -> None:
        self._config = config
        self._card = card
        self._cluster_key = cluster_key
        self._catalogue = catalogue
        self._serving = serving
        self._mesh = mesh
        self._counters = counters
        self._availability = availability
        self._running = running
        self._started = trio.current_time()

    def by_name(self) -> dict[str, Operation]:
        return {
            "status": self.status,
            "peers": self.peers,
            "config": self.config,
            "model.add": self.add,
            "model.get": self.get,
            "model.import": self.import_car,
            "model.export": self.export_car,
            "model.ls": self.list_models,
            "model.info": self.info,
            "model.rm": self.remove,
            "pause": self.pause,
            "resume": self.resume,
        }

    async def status(self, call: IncomingCall) -> dict[str, Any]:  # noqa: ARG002
        linked = [peer for peer in self._mesh.directory.peers() if peer.linked]
        return {
            "peer_id": self._card.node,
            "node_name": self._card.node_name,
            "version": __version__,
            "state": self._availability.state,
            "uptime_s": trio.current_time() - self._started,
            "addresses": list(self._mesh.addresses),
            "cluster_id": cluster_id(self._cluster_key),
            "token": encode_token(self._cluster_key, list(self._mesh.addresses)),
            "data_dir": str(self._config.data_dir),
            "socket": str(self._config.paths.socket),
            "backends": self._backends(),
            "models": len(self._catalogue.here()),
            "peers": len(linked),
            "unlinked": [{"address": address, **error.as_dict()} for address, error in self._mesh.failures().items()],
            "jobs": vars(self._counters).copy(),
            "running": self._running.describe(self._name_of()),
            "open": len(self._running),
            "memory": self._serving.memory(),
            "threads": self._config.threads,
            "kubo": self._config.kubo,
            "gateways": list(self._config.gateways),
            "public": self._config.public,
            "ipfs": {"peers": self._mesh.bitswap.guests, "sent": self._mesh.bitswap.sent},
        }

    async def peers(self, call: IncomingCall) -> list[dict[str, Any]]:  # noqa: ARG002
        now = trio.current_time()
        return [_peer(peer, now) for peer in self._mesh.directory.peers()]

    async def config(self, call: IncomingCall) -> dict[str, Any]:  # noqa: ARG002
        return self._config.as_dict()

    async def add(self, call: IncomingCall) -> dict[str, Any]:
        path, name = _text(call, "path"), _optional_text(call, "name")
        profile = find_profile(_optional_text(call, "cid_profile") or self._config.cid_profile)
        began, anyway = trio.current_time(), call.arguments.get("anyway") is True
        await trio.to_thread.run_sync(partial(check_folder, Path(path), anyway=anyway))
        take = call.arguments.get("take") is True and self._config.paths.downloads in Path(path).parents
        stored = await self._catalogue.add(
            path, name, origin=_origin(call), take=take, profile=profile, on_progress=call.progress
        )
        return {
            "cid": stored.cid,
            "name": stored.name,
            "size": stored.size,
            "cid_profile": profile.name,
            "files": sum(1 for entry in stored.path.rglob("*") if entry.is_file()),
            "seconds": trio.current_time() - began,
            "why_not": self._catalogue.why_not(stored),
            "namesakes": self._catalogue.namesakes(stored),
            **stored.origin._asdict(),
        }

    async def get(self, call: IncomingCall) -> dict[str, Any]:
        cid, name = self._catalogue.resolve(_text(call, "model")), _optional_text(call, "name")
        return await self._catalogue.get(cid, name, ipfs_peers=_addresses(call, "from"), on_progress=call.progress)

    async def import_car(self, call: IncomingCall) -> dict[str, Any]:
        root, path = _optional_text(call, "root"), Path(_text(call, "path"))
        return await self._catalogue.import_car(
            path,
            _optional_text(call, "name"),
            root=parse_cid(root) if root else None,
            origin=_origin(call),
            on_progress=call.progress,
        )

    async def export_car(self, call: IncomingCall) -> dict[str, Any]:
        path = Path(_text(call, "path"))
        return await self._catalogue.export_car(_text(call, "model"), path, on_progress=call.progress)

    async def list_models(self, call: IncomingCall) -> list[dict[str, Any]]:  # noqa: ARG002
        return [self._model(model) for model in self._catalogue.known().values()]

    async def info(self, call: IncomingCall) -> dict[str, Any]:
        cid = self._catalogue.resolve(_text(call, "model"))
        model = self._catalogue.known().get(cid)
        if model is None:
            raise AccelError(ErrorCode.UNKNOWN_MODEL, f"nobody here has {format_cid(cid)}")
        why_not = self._catalogue.why_not(model.here) if model.here else ""
        origin = model.here.origin if model.here else Origin()
        return {**self._model(model), **_files(model), "why_not": why_not, **origin._asdict()}

    async def remove(self, call: IncomingCall) -> dict[str, Any]:
        return await self._catalogue.remove(_text(call, "model"))

    async def pause(self, call: IncomingCall) -> dict[str, Any]:
        """Computes no new jobs; with `wait_s`, answers when nothing runs here any more."""
        wait_s = _seconds(call, "wait_s")
        self._availability.pause()
        self._serving.pause(True)
        if wait_s:
            await self._until_idle(call, wait_s)
        return {"state": self._availability.state, "in_hand": self._serving.in_hand}

    async def resume(self, call: IncomingCall) -> dict[str, Any]:  # noqa: ARG002
        self._availability.resume()
        self._serving.pause(False)
        return {"state": self._availability.state, "in_hand": self._serving.in_hand}

    async def _until_idle(self, call: IncomingCall, seconds: float) -> None:
        told = (0, 0.0)
        with trio.move_on_after(seconds):
            while left := self._serving.in_hand:
                now = trio.current_time()
                if told[0] != left or now - told[1] > _TELL_EVERY_S:
                    told = left, now
                    call.progress("waiting", 0, 0, f"{left} left to finish")
                await trio.sleep(_LOOK_EVERY_S)
            return
        raise AccelError(
            ErrorCode.DEADLINE_EXCEEDED,
            f"the node is paused, and {left} of its jobs had not finished after {seconds:g} s",
            "See `ipfs-accel-node top`, or wait longer with --timeout.",
        )

    def _backends(self) -> list[dict[str, Any]]:
        """Each backend, its models with the names that people know them by."""
        named = self._name_of()
        told = self._serving.describe()
        for model in (model for backend in told for model in backend["models"]):
            model["name"] = named(parse_cid(model["cid"]))
        return told

    def _name_of(self) -> Callable[[bytes], str]:
        known = self._catalogue.known()
        return lambda cid: known[cid].name if cid in known else ""

    def _model(self, model: KnownModel) -> dict[str, Any]:
        return {
            "cid": format_cid(model.cid),
            "name": model.name,
            "size": model.size,
            "task": model.task,
            "here": model.here is not None,
            "pinned": model.here is not None and model.here.pinned,
            "damaged": self._catalogue.damaged(model.cid),
            "nodes": self._offers(model),
        }

    def _offers(self, model: KnownModel) -> list[dict[str, Any]]:
        """Who runs it, and how fast it was measured; a holder without a backend has an empty one."""
        told = [(self._card.node, self._card.node_name, offer) for offer in self._serving.offers()]
        for peer in self._mesh.directory.peers():
            told += [(peer.peer_id, peer.name, offer) for offer in peer.offers]
        return [
            {
                "node": node,
                "node_name": name,
                "backend": offer.backend,
                "precision": offer.precision,
                "warm": offer.warm,
                "fixed_ms": offer.speed.fixed_s * 1e3 if offer.speed else None,
                "per_kib_ms": offer.speed.per_unit_s * 1024e3 if offer.speed else None,
                "count": offer.speed.count if offer.speed else 0,
                "spread": offer.speed.spread if offer.speed else None,
            }
            for node, name, offer in told
            if offer.cid == model.cid
        ]


def _peer(peer: Peer, now: float) -> dict[str, Any]:
    return {
        "peer_id": peer.peer_id,
        "name": peer.name,
        "state": peer.state,
        "linked": peer.linked,
        "rtt_ms": peer.rtt_s * 1e3,
        "bandwidth": peer.bandwidth,
        "last_heard_s": now - peer.last_heard,
        "addresses": list(peer.addresses),
        "backends": [
            {
                "name": backend.name,
                "device": backend.device,
                "state": backend.state,
                "queued": backend.queued,
                "wait_s": backend.wait_s,
            }
            for backend in peer.backends
        ],
        "models": [{"cid": format_cid(model.cid), "name": model.name, "size": model.size} for model in peer.models],
    }


def _files(model: KnownModel) -> dict[str, Any]:
    if model.here is None:
        return {"path": None, "files": []}
    root = model.here.path
    files = sorted(entry for entry in root.rglob("*") if entry.is_file())
    return {
        "path": str(root),
        "files": [{"path": str(file.relative_to(root)), "size": file.stat().st_size} for file in files],
    }


def _text(call: IncomingCall, key: str) -> str:
    value = call.arguments.get(key) if isinstance(call.arguments, dict) else None
    if not isinstance(value, str) or not value or "\0" in value:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method} needs {key!r}")
    return value


def _optional_text(call: IncomingCall, key: str) -> str | None:
    return _text(call, key) if call.arguments.get(key) is not None else None


def _addresses(call: IncomingCall, key: str) -> tuple[str, ...]:
    """None where it was not given."""
    value = call.arguments.get(key) or ()
    try:
        addresses = peers(value) if value else ()
    except ValueError as error:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method}: {error}") from None
    if len(addresses) > _MOST_ADDRESSES:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method} takes {_MOST_ADDRESSES} addresses")
    return addresses


def _origin(call: IncomingCall) -> Origin:
    told, license_name = _optional_text(call, "origin") or "", _optional_text(call, "license") or ""
    if max(len(told), len(license_name)) > _LONGEST_ORIGIN:
        raise AccelError(ErrorCode.BAD_INPUT, f"origin and license have at most {_LONGEST_ORIGIN} characters")
    return Origin(told, license_name, call.arguments.get("gated") is True)


def _seconds(call: IncomingCall, key: str) -> float:
    """Nothing at all where it was not given."""
    value = call.arguments.get(key) if isinstance(call.arguments, dict) else None
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 < value <= _LONGEST_WAIT_S:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method} takes {key!r} up to {_LONGEST_WAIT_S:g} s")
    return float(value)


def _pinned(stored: StoredModel) -> dict[str, Any]:
    return {"cid": stored.cid, "name": stored.name, "size": stored.size, "pinned": stored.pinned}

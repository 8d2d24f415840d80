"""The composition root: builds the parts of a node, connects them, and runs them in one nursery."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio

from ..protocols.bulk import FEATURE
from ..protocols.errors import AccelError
from ..protocols.sealing import decode_token, encode_token
from .advertising import Advertiser
from .api.local import LocalDoor, serve_socket
from .api.operations import Operations
from .api.peer import PeerDoor
from .api.pins import PinOperations
from .api.publishing import PublishingOperations
from .api.repo import RepoOperations
from .api.tls import TlsDoor
from .availability import Availability
from .bulk.door import BulkDoor
from .bulk.process import BulkProcess
from .candidates import CandidateBook
from .catalogue import Catalogue, open_store
from .config import Config
from .content.outside import Outside
from .content.store import ModelStore, Origin, StoreLock
from .dispatch import Dispatcher
from .fetch_sources import FetchSources
from .identity_card import IdentityCard
from .logs import log_to
from .mesh import cluster, identity
from .mesh.mesh import Mesh, MeshSettings
from .pinning.cluster import ClusterPins
from .providers import ProviderFinder
from .public_blocks import PublicBlocks
from .publishing import Publisher
from .running import RunningJobs
from .serving.service import ServingService, ServingSettings
from .storekeeping import Storekeeper

log = logging.getLogger(__name__)


class Teller(Protocol):
    """Tells whoever started the node how it goes. What it prints to may be gone: OSError is no reason to end."""

    def ready(self, facts: dict[str, Any]) -> None:
        """Clients are accepted: peer_id, addresses, token, socket."""

    def linked(self, node_name: str) -> None:
        """A link with a peer is up."""

    def alone(self, reasons: dict[str, AccelError]) -> None:
        """Nobody was reached, a while after a start with somebody to join; why, by address."""

    def stopping(self, jobs: int) -> None:
        """The first signal came; so many jobs are still waited for."""


_JOIN_PATIENCE_S = 10.0
_DRAIN_DEADLINE_S = 20.0
_DRAIN_LOOK_EVERY_S = 0.05


def run(config: Config, teller: Teller) -> None:
    """Runs a node until SIGTERM or SIGINT. Raises AccelError when it cannot start."""
    config.data_dir.mkdir(parents=True, exist_ok=True)
    with StoreLock(config.paths.content):
        log_to(config.paths.log, config.log_level, as_json=config.log_json)
        _clear_unfinished(config.paths.cache)
        try:
            trio.run(_run_node, config, teller)
        except BaseExceptionGroup as group:
            raise _only_error(group) from None
        finally:
            _clear_unfinished(config.paths.cache)


@dataclass
class Node:
    """The parts of a running node that act together."""

    availability: Availability
    bulk: BulkProcess
    mesh: Mesh
    serving: ServingService
    catalogue: Catalogue
    dispatcher: Dispatcher
    advertiser: Advertiser
    operations: Operations
    door: LocalDoor
    tls: TlsDoor
    peer_door: PeerDoor
    pins: ClusterPins
    publisher: Publisher

    @property
    def running_jobs(self) -> int:
        return self.dispatcher.counters.running + self.peer_door.running

    @property
    def has_work(self) -> bool:
        """Whether a job runs, or an answer is on its way to whoever asked."""
        return bool(self.running_jobs) or self.door.is_sending or self.tls.is_sending or self.mesh.is_sending


async def _run_node(config: Config, teller: Teller) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nodes: list[Node] = []
            nursery.start_soon(_stop_when_told, signals, nodes, teller, nursery.cancel_scope)
            nodes.append(await _start(config, teller, nursery))


async def _start(config: Config, teller: Teller, nursery: trio.Nursery) -> Node:
    """Builds a node and runs its parts in `nursery`; it is whole when this returns."""
    key, bootstrap = _cluster_of(config)
    own = identity.load_or_create(config.paths.identity)
    node = _build(config, own, key, bootstrap, teller)
    await nursery.start(node.bulk.run)
    await nursery.start(node.mesh.run)
    await nursery.start(node.serving.run)
    node.catalogue.warm_all()
    await nursery.start(partial(serve_socket, config.paths.socket, node.door))
    if config.listen_clients is not None:
        await nursery.start(partial(node.tls.serve, config.listen_clients, node.door))
    nursery.start_soon(node.advertiser.run)
    nursery.start_soon(node.publisher.run)
    nursery.start_soon(node.pins.run)
    teller.ready(_ready_facts(config, node, key))
    if bootstrap:
        nursery.start_soon(_tell_when_alone, node, teller)
    return node


def _build(config: Config, own: identity.Identity, key: bytes, bootstrap: list[str], teller: Teller) -> Node:
    card = IdentityCard(own.peer_id, config.node_name)
    store = open_store(config.paths, config.disk_limit)
    changes, running = _Changes(), RunningJobs()
    availability = Availability(changes.tell)
    serving = ServingService(
        ServingSettings(config.backends, config.threads, config.memory_bytes, config.precision),
        model_path=lambda cid: _path_of(store, cid),
        cache=config.paths.cache,
        measurements_path=config.paths.measurements,
        on_change=changes.tell,
    )
    peer_door = PeerDoor(card, serving, availability, running, partial(_origin_of, store))
    bulk = BulkProcess(config.paths.content, config.listen)
    mesh = Mesh(
        MeshSettings(list(config.listen), bootstrap, config.mdns, config.node_name, config.paths.addresses, (FEATURE,)),
        own,
        key,
        handler_for=lambda peer_id: BulkDoor(peer_id, bulk, lambda: mesh.addresses, peer_door),
        read_block=partial(_read_block, store),
        served=PublicBlocks(store) if config.public else None,
        on_link=teller.linked,
    )
    outside = Outside(config.kubo, config.kubo_auth, config.gateways)
    sources = FetchSources(mesh, bulk, outside, config.ipfs_peers)
    catalogue = Catalogue(store, serving, mesh, sources, changes.tell)
    book = CandidateBook(card, serving, mesh.directory, catalogue.size, trio.current_time, availability)
    dispatcher = Dispatcher(card, catalogue, serving, mesh, book, availability, running)
    advertiser = Advertiser(config.node_name, availability, catalogue, serving, mesh)
    changes.listener = advertiser.changed
    operations = Operations(config, card, key, catalogue, serving, mesh, dispatcher.counters, availability, running)
    repo = RepoOperations(Storekeeper(store, catalogue), catalogue)
    pins = ClusterPins(config.paths.pins, own, key, config.pin_grace_s, store, catalogue, mesh)
    peer_door.calls.update(pins.exchange.calls())
    pinning = PinOperations(card, catalogue, pins.book, pins.members, pins.keeper)
    tls = TlsDoor(config.paths)
    publisher = Publisher(config, store, catalogue)
    publishing = PublishingOperations(publisher, ProviderFinder(config, card, catalogue, mesh))
    parts = operations.by_name() | repo.by_name() | pinning.by_name() | publishing.by_name()
    door = LocalDoor(dispatcher, {**parts, "client-token": tls.token})
    return Node(
        availability, bulk, mesh, serving, catalogue, dispatcher, advertiser, operations, door, tls, peer_door, pins,
        publisher,
    )  # fmt: skip


class _Changes:
    """Lets parts that are built before the advertiser tell it that something changed."""

    listener: Callable[[], None] | None = None

    def tell(self) -> None:
        if self.listener is not None:
            self.listener()


def _path_of(store: ModelStore, cid: bytes) -> Path | None:
    stored = store.get(cid)
    return stored.path if stored else None


def _origin_of(store: ModelStore, cid: bytes) -> Origin | None:
    stored = store.get(cid)
    return stored.origin if stored else None


async def _read_block(store: ModelStore, cid: bytes) -> bytes | None:
    return await trio.to_thread.run_sync(store.read_block, cid)


def _cluster_of(config: Config) -> tuple[bytes, list[str]]:
    """The cluster's key and where to find it: from the token that was given, else from what is kept."""
    if config.join is None:
        return cluster.load_or_create(config.paths.cluster_key), list(config.peers)
    key, addresses = decode_token(config.join)
    cluster.save(config.paths.cluster_key, key)
    return key, [*config.peers, *addresses]


def _ready_facts(config: Config, node: Node, key: bytes) -> dict[str, Any]:
    return {
        "ready": True,
        "peer_id": node.mesh.peer_id,
        "node_name": config.node_name,
        "addresses": list(node.mesh.addresses),
        "token": encode_token(key, list(node.mesh.addresses)),
        "socket": str(config.paths.socket),
        "data_dir": str(config.data_dir),
        "clients": node.tls.describe() if config.listen_clients else None,
        "public": config.public,
    }


async def _tell_when_alone(node: Node, teller: Teller) -> None:
    await trio.sleep(_JOIN_PATIENCE_S)
    if not any(peer.linked for peer in node.mesh.directory.peers()):
        teller.alone(node.mesh.failures())


async def _stop_when_told(
    signals: AsyncIterator[int], nodes: list[Node], teller: Teller, scope: trio.CancelScope
) -> None:
    """Stops at a second signal, when the first one's draining is over, or at once while nothing is ready yet."""
    await anext(signals)
    async with trio.open_nursery() as nursery:
        for node in nodes:
            teller.stopping(node.running_jobs)
            nursery.start_soon(_drain, node, nursery.cancel_scope)
        if nodes:
            await anext(signals)
        nursery.cancel_scope.cancel()
    scope.cancel()


async def _drain(node: Node, scope: trio.CancelScope) -> None:
    """Takes no new job, says so, and lets those that run finish."""
    node.availability.drain()
    log.info("draining: %d jobs run", node.running_jobs)
    with trio.move_on_after(_DRAIN_DEADLINE_S):
        await node.advertiser.publish()
        while node.has_work:
            await trio.sleep(_DRAIN_LOOK_EVERY_S)
    scope.cancel()


def _clear_unfinished(cache: Path) -> None:
    """What a conversion that was killed left: its worker takes it along without a word."""
    for path in cache.glob("*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A start that failed raises one error inside nested groups; a person wants that error."""
    while isinstance(group, BaseExceptionGroup) and len(group.exceptions) == 1:
        inner = group.exceptions[0]
        if not isinstance(inner, BaseExceptionGroup):
            return inner
        group = inner
    return group

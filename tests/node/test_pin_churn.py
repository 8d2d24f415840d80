"""Twenty nodes whose pins, links and members change all the time; then all is quiet, and everything is as it should be.

The books, exchanges and keepers are the real ones. What is between them is made up: links that lose messages, groups
that do not reach each other, stores that only count, and a clock that jumps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from ipfs_accel_node.node.content.collection import Room
from ipfs_accel_node.node.pinning.book import PinBook
from ipfs_accel_node.node.pinning.exchange import PinExchange
from ipfs_accel_node.node.pinning.keeper import PinKeeper
from ipfs_accel_node.node.pinning.members import Members
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode
from ipfs_accel_node.protocols.pins import PinChange
from ipfs_accel_node.protocols.sealing import peer_id_of

KEY = bytes(32)
GRACE_S = 60.0
GIB = 1 << 30
MODELS = [b"\x01\x70\x12\x20" + bytes(31) + bytes([number]) for number in range(12)]


class CountingStore:
    """Which models a node has, and which of them the cluster wants there."""

    def __init__(self) -> None:
        self.shared: dict[bytes, bool] = {}
        self.damaged: dict[bytes, list[str]] = {}

    def models(self) -> list[Any]:
        return [self._model(cid) for cid in self.shared]

    def get(self, cid: bytes) -> Any:
        return self._model(cid) if cid in self.shared else None

    def share(self, cid: bytes, *, shared: bool) -> None:
        self.shared[cid] = shared

    def room(self) -> Room:
        return Room(len(self.shared) * GIB, 9 * GIB, 1 << 50)

    def evict(self) -> None:
        """Somebody else needed the room."""
        self.shared = {cid: shared for cid, shared in self.shared.items() if shared}

    def _model(self, cid: bytes) -> Any:
        shared = self.shared[cid]
        return SimpleNamespace(cid_bytes=cid, cid=cid.hex(), name="", size=GIB, shared=shared, kept=shared)


@dataclass(eq=False)
class SimulatedLink:
    peer_id: str
    facts: Any
    channel: Any


class Network:
    """Who reaches whom, and how much is lost on the way."""

    def __init__(self, choices: random.Random) -> None:
        self.choices = choices
        self.nodes: list[SimulatedNode] = []
        self.loss = 0.0
        self.split: set[str] = set()

    def reachable(self, one: SimulatedNode) -> Iterator[SimulatedNode]:
        for other in self.nodes:
            if other is not one and other.up and (one.name in self.split) == (other.name in self.split):
                yield other


class SimulatedNode:
    """One node; it may crash and come back with what was on its disk."""

    def __init__(self, number: int, network: Network, folder) -> None:
        self.name = f"node-{number}"
        self.seed = bytes([number]) * 32
        self.network = network
        self.path = folder / self.name
        self.store = CountingStore()
        self.up = False
        self.met: set[str] = set()
        self.book = PinBook(self.path, cluster_key=KEY, signing_key=self.seed)
        self.peer_id = peer_id_of(_public(self.seed))
        self.links_to: dict[str, Any] = {}

    async def run(self) -> None:
        """Until it is cancelled."""
        self.book = PinBook(self.path, cluster_key=KEY, signing_key=self.seed)
        self.members = Members(trio.current_time, GRACE_S)
        self.keeper = PinKeeper(
            self.peer_id, self.store, self.book, self.members, self.fetch, grace_s=GRACE_S,
            unseen=lambda: bool(self.met - self.members.views().keys()),
        )  # fmt: skip
        self.exchange = PinExchange(self, self.book, self.members, self.keeper.state)
        self.exchange.on_state = self.keeper.wake
        self.links_to.clear()
        self.up = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.exchange.run)
                nursery.start_soon(self.keeper.run)
        finally:
            self.up = False

    def links(self) -> list[Any]:
        found = []
        for other in self.network.reachable(self):
            self.met.add(other.peer_id)
            found.append(self.links_to.setdefault(other.peer_id, self.link_to(other)))
        return found

    def link_to(self, other: SimulatedNode) -> Any:
        async def call(method: str, arguments: Any, *, timeout: float) -> Any:
            await trio.sleep(0.01)
            if self.network.choices.random() < self.network.loss or other not in self.network.reachable(self):
                await trio.sleep(timeout)
                raise AccelError(ErrorCode.DEADLINE_EXCEEDED, "lost on the way")
            asked = SimpleNamespace(arguments=values.unpack(values.pack(arguments)))
            return values.unpack(values.pack(await other.exchange.calls()[method](asked)))

        return SimulatedLink(other.peer_id, SimpleNamespace(node_name=other.name), SimpleNamespace(call=call))

    async def fetch(self, cid: bytes, *, on_progress) -> None:
        on_progress("fetching", 1, 2, "")
        await trio.sleep(2.0)
        if not any(cid in other.store.shared for other in self.network.reachable(self)):
            raise AccelError(ErrorCode.CONTENT_NOT_FOUND, "nobody has it")
        self.store.shared.setdefault(cid, False)


def _public(seed: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


class Simulation:
    """Starts, stops and disturbs the nodes."""

    def __init__(self, seed: int, folder, nursery: trio.Nursery, count: int) -> None:
        self.choices = random.Random(seed)
        self.network = Network(random.Random(seed + 1))
        self.nodes = [SimulatedNode(number, self.network, folder) for number in range(count)]
        self.network.nodes = self.nodes
        self.nursery = nursery
        self.scopes: dict[str, trio.CancelScope] = {}
        for node in self.nodes:
            self.start(node)

    def start(self, node: SimulatedNode) -> None:
        scope = self.scopes[node.name] = trio.CancelScope()

        async def live() -> None:
            with scope:
                await node.run()

        self.nursery.start_soon(live)

    async def crash(self, node: SimulatedNode) -> None:
        self.scopes[node.name].cancel()
        while node.up:
            await trio.sleep(0.1)

    async def disturb(self) -> None:
        node = self.choices.choice([each for each in self.nodes if each.up])
        match self.choices.randrange(8):
            case 0 | 1 | 2:
                minimum = self.choices.randint(1, 3)
                cid = self.choices.choice(MODELS)
                await node.book.pin(cid, size=GIB, minimum=minimum, maximum=minimum + self.choices.randint(0, 2))
            case 3:
                if pins := node.book.pins.pins():
                    await node.book.unpin(self.choices.choice(pins).cid)
            case 4:
                if sum(each.up for each in self.nodes) > len(self.nodes) // 2:
                    await self.crash(node)
            case 5:
                for each in self.nodes:
                    if not each.up:
                        self.start(each)
            case 6:
                names = [each.name for each in self.nodes]
                self.network.split = set(self.choices.sample(names, self.choices.randint(0, len(names) // 2)))
            case _:
                node.store.evict()

    async def quiet(self) -> None:
        """Everyone is back, nothing is lost any more, and there is time."""
        self.network.loss, self.network.split = 0.0, set()
        for node in self.nodes:
            if not node.up:
                self.start(node)
        await trio.sleep(GRACE_S)
        for _ in range(60):
            await trio.sleep(5)
            if all(node.store.shared == self.expected(node) for node in self.nodes):
                return

    def expected(self, node: SimulatedNode) -> dict[bytes, bool]:
        """What it has, marked as its own choice says."""
        return {cid: node.peer_id in node.keeper.wanted(cid) for cid in node.store.shared}


def check(simulation: Simulation) -> None:
    nodes = simulation.nodes
    assert len({node.book.pins.digest() for node in nodes}) == 1, "one outcome on all"
    pins = nodes[0].book.pins.pins()
    for pin in pins:
        wanted = {tuple(sorted(node.keeper.wanted(pin.cid))) for node in nodes}
        assert len(wanted) == 1, "all choose alike"
        holders = {node.peer_id for node in nodes if node.store.shared.get(pin.cid)}
        assert holders == set(*wanted), "those that are chosen hold it, and nobody else does"
        assert pin.minimum <= len(holders) <= pin.maximum
    pinned = {pin.cid for pin in pins}
    for node in nodes:
        assert {cid for cid, shared in node.store.shared.items() if shared} <= pinned
        assert PinBook(node.path, cluster_key=KEY, signing_key=node.seed).pins.digest() == node.book.pins.digest()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.soak), pytest.param(2, marks=pytest.mark.soak)])
async def test_twenty_nodes_under_churn_come_to_one_outcome(tmp_path, autojump_clock, seed):
    async with trio.open_nursery() as nursery:
        simulation = Simulation(seed, tmp_path, nursery, 20)
        for number, node in enumerate(simulation.nodes):
            node.store.shared = {cid: False for cid in MODELS if (cid[-1] + number) % 7 == 0}
        await trio.sleep(5)
        simulation.network.loss = 0.1
        for _ in range(60):
            await trio.sleep(simulation.choices.uniform(0.5, 8))
            await simulation.disturb()
        await simulation.quiet()
        check(simulation)
        assert simulation.nodes[0].book.pins.pins()
        nursery.cancel_scope.cancel()


async def test_a_holder_that_is_gone_is_replaced_after_the_grace_and_not_before(tmp_path, autojump_clock):
    async with trio.open_nursery() as nursery:
        simulation = Simulation(0, tmp_path, nursery, 5)
        simulation.nodes[0].store.shared = {MODELS[0]: False}
        await trio.sleep(5)
        await simulation.nodes[1].book.pin(MODELS[0], size=GIB, minimum=2, maximum=2)
        await trio.sleep(30)
        holders = [node for node in simulation.nodes if node.store.shared.get(MODELS[0])]
        assert len(holders) == 2
        await simulation.crash(holders[0])
        others = [node for node in simulation.nodes if node not in holders]
        await trio.sleep(GRACE_S - 15)
        assert not any(MODELS[0] in node.store.shared for node in others)
        await trio.sleep(45)
        assert sum(bool(node.store.shared.get(MODELS[0])) for node in others) == 1
        simulation.start(holders[0])
        await trio.sleep(30)
        assert sum(bool(node.store.shared.get(MODELS[0])) for node in simulation.nodes) == 2, "back to two"
        nursery.cancel_scope.cancel()


async def test_a_node_without_room_is_passed_over_and_trouble_is_told(tmp_path, autojump_clock):
    async with trio.open_nursery() as nursery:
        simulation = Simulation(0, tmp_path, nursery, 4)
        first, full = simulation.nodes[:2]
        first.store.shared = {MODELS[0]: False}
        full.store.room = partial(Room, 0, 1, 1 << 50)
        await trio.sleep(25)
        await first.book.pin(MODELS[0], size=GIB)
        await trio.sleep(30)
        assert [bool(node.store.shared.get(MODELS[0])) for node in simulation.nodes] == [True, False, True, True]

        async def broken(cid, *, on_progress):
            raise AccelError(ErrorCode.DISK_FULL, "no room after all")

        simulation.nodes[2].keeper._fetch = broken
        await first.book.pin(MODELS[1], size=GIB, minimum=1, maximum=0)
        simulation.nodes[3].store.shared[MODELS[1]] = False
        await trio.sleep(30)
        trouble = simulation.nodes[2].keeper.trouble(MODELS[1])
        assert trouble.code == "disk-full"
        assert simulation.nodes[0].store.shared.get(MODELS[1]) is True
        nursery.cancel_scope.cancel()


async def test_what_is_told_wrongly_is_refused_and_changes_nothing(tmp_path, autojump_clock):
    async with trio.open_nursery() as nursery:
        simulation = Simulation(0, tmp_path, nursery, 2)
        await trio.sleep(5)
        one, other = simulation.nodes
        await one.book.pin(MODELS[0], size=GIB)
        await trio.sleep(5)
        digest = other.book.pins.digest()
        assert digest == one.book.pins.digest()
        calls = other.exchange.calls()
        for method, arguments in (
            ("pins.tell", None), ("pins.tell", {"changes": 5}), ("pins.tell", {"changes": [b"made up"]}),
            ("pins.changes", {}), ("pins.changes", {"bucket": 64}), ("pins.changes", {"bucket": True}),
        ):  # fmt: skip
            with pytest.raises(AccelError):
                await calls[method](SimpleNamespace(arguments=arguments))
        for state in (
            None, [], [b"", 0, b"", 0], [b"", "x", b"", 0, 0], [digest, 0, b"\x09", 0, 0], [digest, 0, b"", 0, 0],
        ):  # fmt: skip
            with pytest.raises(AccelError):
                other.members.told(one.peer_id, "one", state, other.book.pins)
        assert other.book.pins.digest() == digest
        nursery.cancel_scope.cancel()


async def test_a_book_keeps_what_it_acknowledged_and_forgives_a_damaged_file(tmp_path):
    book = PinBook(tmp_path / "pins", cluster_key=KEY, signing_key=bytes(32))
    pin = await book.pin(MODELS[0], name="mine", minimum=2, maximum=3)
    await book.pin(MODELS[1])
    await book.unpin(MODELS[1])
    with pytest.raises(AccelError, match="unknown-model"):
        await book.unpin(MODELS[1])
    with pytest.raises(AccelError, match="cannot hold a pin"):
        await book.pin(MODELS[1], minimum=3, maximum=2)
    again = PinBook(tmp_path / "pins", cluster_key=KEY, signing_key=bytes(32))
    assert again.pins.pins() == [pin]
    assert len(again.pins) == 2
    assert len(PinBook(tmp_path / "pins", cluster_key=bytes([1] * 32), signing_key=bytes(32)).pins) == 0
    data = (tmp_path / "pins").read_bytes()
    for damaged in (b"", data[:-1], b"x" + data[1:]):
        (tmp_path / "pins").write_bytes(damaged)
        assert len(PinBook(tmp_path / "pins", cluster_key=KEY, signing_key=bytes(32)).pins) == 0
    assert isinstance(pin, PinChange)

"""From adverts and this node's own state to candidates, and what jobs teach about them."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
from ipfs_accel_node.node.availability import Availability
from ipfs_accel_node.node.candidates import CandidateBook
from ipfs_accel_node.node.identity_card import IdentityCard
from ipfs_accel_node.node.mesh.directory import Directory
from ipfs_accel_node.node.mesh.routing import rank
from ipfs_accel_node.protocols.advert import Advert, BackendState, ModelInfo, Offer, Speed
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode
from ipfs_accel_node.protocols.work import Work

CID = b"\x01\x70\x12\x20" + bytes(32)
SPEED = Speed(0.010, 0.0, "bytes", 0.1, 10)
CPU = BackendState("cpu", "a processor", "ready", 0, 0.0)


class FakeServing:
    """Stands for the serving facade: what it offers is what the test puts in."""

    failed = None

    def why_not(self, cid):
        return self.failed

    def __init__(self):
        self.states, self.offered = [CPU], []

    def backend_states(self):
        return self.states

    def offers(self):
        return self.offered

    def can_run(self, backend, task):
        return task == "t"

    def precisions(self):
        return {"cpu": "f32"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self):
        self.clock = Clock()
        self.directory = Directory(self.clock)
        self.serving = FakeServing()
        self.here = {}
        card = IdentityCard("me", "my-node")
        self.availability = Availability(lambda: None)
        self.book = CandidateBook(card, self.serving, self.directory, self.here.get, self.clock, self.availability)

    def peer(self, peer_id, *, speed=SPEED, state="ready", wait_s=0.0, linked=True, counter=1):
        if linked:
            self.directory.linked(peer_id, f"{peer_id}-name", ())
        advert = Advert(
            1, counter, f"{peer_id}-name", state, (), (BackendState("cpu", "", "ready", 0, wait_s),),
            (ModelInfo(CID, "m", 1 << 20, "t"),), (Offer(CID, "cpu", "t", "f32", True, 1.0, speed),),
        )  # fmt: skip
        assert self.directory.advertised(peer_id, advert)

    def local(self, speed=SPEED):
        self.here[CID] = 1 << 20
        self.serving.offered = [Offer(CID, "cpu", "t", "f32", True, 1.0, speed)]

    def candidates(self, on=None, task="t"):
        return self.book.candidates(CID, task, on)

    def best(self):
        return rank(Work(10), self.candidates(), rng=random.Random(1))[0]


@pytest.fixture
def world():
    return World()


def test_everyone_who_offers_the_task_is_a_candidate(world):
    world.local()
    world.peer("peer")
    assert sorted((each.peer_id, each.local) for each in world.candidates()) == [("me", True), ("peer", False)]
    assert world.candidates(task="other") == []


@pytest.mark.parametrize("facts", [{"linked": False}, {"state": "draining"}])
def test_a_peer_that_takes_no_jobs_is_none(world, facts):
    world.peer("peer", **facts)
    assert [each.peer_id for each in world.candidates() if not each.local] == []


def test_without_the_model_this_node_can_fetch_it(world):
    assert world.candidates() == []
    world.peer("peer")
    (here,) = [each for each in world.candidates() if each.local]
    assert (here.fetch_bytes, here.warm, here.speed) == (1 << 20, False, None)
    world.serving.can_run = lambda backend, task: False
    assert [each.peer_id for each in world.candidates()] == ["peer"]


def test_one_node_can_be_asked_for(world):
    world.local()
    world.peer("peer-1")
    world.peer("peer-2")
    for on, expected in (
        ("local", "me"),
        ("me", "me"),
        ("my-node", "me"),
        ("peer-2", "peer-2"),
        ("peer-1-name", "peer-1"),
    ):
        world.book.check_forced(on)
        assert {each.peer_id for each in world.candidates(on)} == {expected}
    with pytest.raises(AccelError) as unknown:
        world.book.check_forced("nobody")
    assert unknown.value.code == "unknown-peer"
    for no_text in (5, ["peer-1"] * 9):
        with pytest.raises(AccelError, match="bad-input"):
            world.book.check_forced(no_text)


def test_own_dispatches_count_until_an_advert_can_have_counted_them(world):
    world.peer("peer")
    prediction = world.best()
    world.clock.now += 1
    with world.book.dispatched(prediction):
        (busy,) = [each for each in world.candidates() if not each.local]
        assert busy.dispatched_s == pytest.approx(0.010)
        world.clock.now += 1
        world.peer("peer", counter=2)
        (told,) = [each for each in world.candidates() if not each.local]
        assert told.dispatched_s == 0
    assert world.candidates()[-1].dispatched_s == 0


def test_many_dispatches_at_once_spread_instead_of_herding(world):
    world.peer("peer-1")
    world.peer("peer-2")
    sent = []
    with ExitStack() as running:
        for _ in range(10):
            prediction = world.best()
            sent.append(prediction.candidate.peer_id)
            running.enter_context(world.book.dispatched(prediction))
    assert sent.count("peer-1") == sent.count("peer-2") == 5


def test_what_jobs_took_corrects_what_was_claimed_and_is_forgotten_again(world):
    world.peer("liar", speed=Speed(0.001, 0.0, "bytes", 0.1, 10))
    world.peer("honest", speed=Speed(0.010, 0.0, "bytes", 0.1, 10))
    for _ in range(200):
        prediction = world.best()
        truth = 0.05 if prediction.candidate.peer_id == "liar" else 0.010
        world.book.observe(CID, prediction, Work(10), truth)
    liar = next(each for each in world.candidates() if each.peer_id == "liar")
    assert 1.5 < liar.observed_ratio <= 8
    world.clock.now += 3600
    liar_later = rank(Work(10), [each for each in world.candidates() if each.peer_id == "liar"], rng=random.Random(1))
    assert liar_later == [] or liar_later[0].candidate.observed_ratio == pytest.approx(1, abs=1e-3)


def test_a_candidate_that_failed_comes_last_for_a_while(world):
    world.peer("fast", speed=Speed(0.001, 0.0, "bytes", 0.1, 10))
    world.peer("slow")
    fast = world.best()
    assert fast.candidate.peer_id == "fast"
    world.book.failed(fast, AccelError(ErrorCode.BUSY, "full"))
    assert world.best().candidate.peer_id == "fast"
    world.book.failed(fast, AccelError(ErrorCode.WORKER_DIED, "died"))
    assert world.best().candidate.peer_id == "slow"
    world.clock.now += 11
    assert world.best().candidate.peer_id == "fast"


def test_a_backend_that_is_still_probed_may_yet_come(world):
    assert not world.book.may_still_come()
    world.serving.states = [BackendState("cpu", "", "probing", 0, 0.0)]
    assert world.book.may_still_come()
    world.serving.states = [BackendState("cpu", "", "failed", 0, 0.0)]
    assert not world.book.may_still_come()


def test_outputs_are_expected_to_be_as_long_as_they_were(world):
    assert world.book.expected_outputs(CID) == float("inf")
    world.book.wrote(CID, 100)
    assert world.book.expected_outputs(CID) == 100
    for _ in range(60):
        world.book.wrote(CID, 20)
    assert world.book.expected_outputs(CID) == pytest.approx(20, abs=0.1)


def test_a_paused_node_leaves_itself_out_and_says_so(world):
    world.local()
    world.availability.pause()
    assert world.candidates() == []
    assert world.book.no_candidate(CID, "t", None).code == ErrorCode.PAUSED
    assert world.book.no_candidate(CID, "other", None).code == ErrorCode.NO_BACKEND
    world.peer("peer")
    assert [each.peer_id for each in world.candidates()] == ["peer"]
    world.peer("resting", state="paused")
    assert [each.peer_id for each in world.candidates()] == ["peer"]
    for on in ("local", "my-node", "resting-name"):
        with pytest.raises(AccelError) as refused:
            world.book.check_forced(on)
        assert refused.value.code == ErrorCode.PAUSED
    world.availability.resume()
    world.book.check_forced("local")
    assert {each.peer_id for each in world.candidates()} == {"me", "peer"}


def test_a_node_that_stops_can_be_neither_paused_nor_resumed():
    changes = []
    availability = Availability(lambda: changes.append(availability.state))
    availability.pause()
    availability.pause()
    availability.drain()
    assert changes == ["paused", "draining"]
    for change in (availability.pause, availability.resume, availability.check_takes, availability.check_computes):
        with pytest.raises(AccelError) as refused:
            change()
        assert refused.value.code == ErrorCode.DRAINING


def test_a_model_that_failed_here_says_why(world):
    world.here[CID] = 1 << 20
    assert world.book.no_candidate(CID, "t", None).code == ErrorCode.NO_BACKEND
    world.serving.failed = AccelError(ErrorCode.NOT_A_MODEL, "on cpu: it has no weights")
    assert world.book.no_candidate(CID, "t", None) is world.serving.failed


def test_a_precision_leaves_those_that_run_the_model_in_it():
    world = World()
    world.local()
    world.peer("peer", speed=None)
    world.serving.offered = [Offer(CID, "cpu", "t", "int8", True, 1.0, SPEED)]
    found = {precision: world.book.candidates(CID, "t", None, precision) for precision in ("f32", "int8", "int4")}
    assert {name: [each.peer_id for each in those] for name, those in found.items()} == {
        "f32": ["peer"], "int8": ["me"], "int4": [],
    }  # fmt: skip
    error = world.book.no_candidate(CID, "t", None, "int4")
    assert (error.code, error.hint.split(";")[0]) == ("unsupported-precision", "It runs in f32, int8.".rstrip("."))


def test_a_model_that_is_fetched_first_runs_in_what_this_node_runs():
    world = World()
    world.peer("peer")
    here = [each.peer_id for each in world.book.candidates(CID, "t", None, "f32") if each.local]
    assert here == ["me"]
    assert world.book.candidates(CID, "t", "local", "bf16") == []

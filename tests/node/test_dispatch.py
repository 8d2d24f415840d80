"""What a dispatcher makes of answers and candidates, whatever a peer puts into them and however many there are."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from ipfs_accel_node.node import dispatch
from ipfs_accel_node.node.dispatch import Dispatcher
from ipfs_accel_node.node.job import Attempt
from ipfs_accel_node.node.mesh.routing import Candidate, rank
from ipfs_accel_node.protocols.work import Work


class Book:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def observe(self, cid, prediction, done, seconds):
        self.told.append(done)

    def wrote(self, cid, outputs):
        self.told.append(outputs)

    def node_name(self, peer_id):
        return f"the node {peer_id}"


@pytest.fixture
def dispatcher():
    made = Dispatcher.__new__(Dispatcher)
    made._book = Book()
    return made


def predictions(count):
    facts = {
        "local": False, "backend": "cpu", "precision": "f32", "rtt_s": 0.1, "wait_s": 0.0, "dispatched_s": 0.0,
        "speed": None, "warm": True, "load_s": 1.0, "fetch_bytes": 0, "bandwidth": None,
    }  # fmt: skip
    return rank(Work(1), [Candidate(peer_id=str(each), **facts) for each in range(count)], rng=random.Random(1))


async def test_it_learns_how_much_was_written(dispatcher):
    attempt = Attempt(None, Work(5, 10), 0.0, 3)
    dispatcher._learn(SimpleNamespace(cid=b""), attempt, {"counts": {"output_tokens": 4}})
    assert dispatcher._book.told == [Work(5, 4), 7]


@pytest.mark.parametrize(
    "report",
    [{}, {"counts": 5}, {"counts": []}, *({"counts": {"output_tokens": n}} for n in ("x", -4, float("nan"), None, []))],
)
async def test_a_report_of_a_peer_that_counts_nothing_harms_no_job(dispatcher, report):
    dispatcher._learn(SimpleNamespace(cid=b""), Attempt(None, Work(5, 10), 0.0, 3), report)
    assert dispatcher._book.told == [Work(5, 0)]


async def test_a_report_tells_of_so_many_candidates_and_attempts_and_always_of_who_did_it(dispatcher):
    many = predictions(200)
    assert len(dispatcher._explain(many)["candidates"]) == dispatch._MOST_TOLD
    job = SimpleNamespace(attempts=[], delivered=SimpleNamespace(token_ids=[]))
    for each in many:
        dispatcher._record(job, Attempt(each, Work(), 0.0, 0), "peer-lost")
    dispatcher._record(job, Attempt(many[-1], Work(), 0.0, 0), "ok")
    assert len(job.attempts) == dispatch._MOST_TOLD + 1
    assert [each["node"] for each in job.attempts] == [each.candidate.peer_id for each in (*many[:32], many[-1])]

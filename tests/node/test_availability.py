"""What a node that is paused or stops says to a job that comes anyway, and which open jobs it lists."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
from ipfs_accel_node.node.api.peer import PeerDoor
from ipfs_accel_node.node.availability import Availability
from ipfs_accel_node.node.exchanges import Incoming
from ipfs_accel_node.node.identity_card import IdentityCard
from ipfs_accel_node.node.running import MOST_LISTED, RunningJobs
from ipfs_accel_node.protocols.errors import AccelError
from ipfs_accel_node.protocols.inference import Request

CID = b"\x01\x70\x12\x20" + bytes(32)


class NoChannel:
    session = None


def incoming(number: int = 0) -> Incoming:
    request = Request(
        job_id=number.to_bytes(16, "big"), attempt=0, model="m", task="t", params={}, options={}, remaining_ms=1000,
        work={},
    )  # fmt: skip
    return Incoming(NoChannel(), 1, request, b"")


@pytest.mark.parametrize(("change", "code"), [("pause", "paused"), ("drain", "draining")])
async def test_a_peers_job_that_comes_too_late_goes_elsewhere(change, code):
    availability = Availability(lambda: None)
    door = PeerDoor(IdentityCard("me", "my-node"), None, availability, RunningJobs(), lambda _: None)
    getattr(availability, change)()
    with pytest.raises(AccelError) as refused:
        await door.handle_request(incoming())
    assert refused.value.code == code
    assert refused.value.worth_another_node
    assert door.running == 0


async def test_open_jobs_are_listed_the_oldest_first_and_not_all(autojump_clock):
    running = RunningJobs()
    jobs = [incoming(number) for number in range(MOST_LISTED + 5)]
    with ExitStack() as opened:
        for job in jobs:
            opened.enter_context(running.listed(job, CID, own=True))
        await trio.sleep(4)
        running.moved(jobs[0], "desk", "cpu")
        jobs[0].tokens = 3
        listed = running.describe(lambda _cid: "minilm")
        assert [each["job_id"] for each in listed] == [job.request.job_id.hex() for job in jobs[:MOST_LISTED]]
        assert listed[0] == {
            "job_id": jobs[0].request.job_id.hex(), "model": "minilm", "task": "t", "own": True, "node_name": "desk",
            "backend": "cpu", "seconds": 4.0, "tokens": 3,
        }  # fmt: skip
        assert running.where(jobs[0]) == "desk"
    assert running.describe(lambda _cid: "") == []
    running.moved(jobs[0], "late", "cpu")
    assert running.where(jobs[0]) == ""

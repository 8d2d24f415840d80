"""A channel over in-memory streams: answers, cancels, refusals, and ends."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from ipfs_accel_node.node.channel import Channel
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode
from ipfs_accel_node.protocols.inference import Request
from ipfs_accel_node.protocols.inference_session import (
    AcceptedReceived,
    ChunkReceived,
    FailedReceived,
    RefusedReceived,
    ResultReceived,
)
from trio.testing import memory_stream_pair


def make_request(task="echo", **fields):
    facts = {
        "job_id": b"j" * 16, "attempt": 0, "model": "m", "task": task, "params": {}, "options": {},
        "remaining_ms": 60_000, "work": {}, "payload_length": 0, "inline": b"",
    }  # fmt: skip
    return Request(**(facts | fields))


class Doubler:
    """Sends a payload back twice over; does other things when the task says so."""

    def __init__(self):
        self.cancelled = 0
        self.started = trio.Event()

    async def handle_request(self, incoming):
        self.started.set()
        if incoming.request.task == "refuse":
            raise AccelError(ErrorCode.BUSY, "the queue is full", "Ask again.")
        incoming.accept(3, 0.25)
        if incoming.request.task == "raise":
            raise ValueError("a mistake")
        if incoming.request.task == "wait":
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled += 1
        if incoming.request.task == "chunks":
            for offset in range(1000):
                await incoming.chunk(offset, [offset], "x" * 5000)
        incoming.result({"by": "doubler"}, await incoming.payload() * 2)

    async def handle_call(self, call):
        if call.method == "fail":
            raise AccelError(ErrorCode.BAD_INPUT, "no such thing")
        if call.method == "wait":
            await trio.sleep_forever()
        call.progress("working", 1, 2)
        return {"got": call.arguments}


@pytest.fixture
async def pair(nursery):
    left, right = memory_stream_pair()
    doubler = Doubler()
    asking = Channel(left, dialler=True)
    answering = Channel(right, dialler=False, handler=doubler)
    await nursery.start(asking.run)
    await nursery.start(answering.run)
    yield asking, answering, doubler
    asking.close()


async def answers(channel, request, payload=b"abc"):
    async with channel.request(request, payload) as exchange:
        return [event async for event in exchange]


@pytest.mark.parametrize("size", [0, 3, 49_000, 3_000_000])
async def test_a_request_is_accepted_and_answered(pair, size):
    asking, answering, _ = pair
    accepted, result = await answers(asking, make_request(), bytes(size))
    assert isinstance(accepted, AcceptedReceived)
    assert (accepted.queue_length, accepted.expected_wait_ms) == (3, 250)
    assert isinstance(result, ResultReceived)
    assert (result.report, len(result.payload)) == ({"by": "doubler"}, 2 * size)
    assert asking.open_requests == answering.open_requests == 0


async def test_a_hundred_at_once_each_get_their_own(pair):
    asking, _, _ = pair
    got = {}

    async def one(number):
        payload = bytes([number]) * number * 997
        got[number] = (await answers(asking, make_request(), payload))[-1].payload == payload * 2

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    assert got == dict.fromkeys(range(100), True)


async def test_a_refusal_before_acceptance(pair):
    (refused,) = await answers(pair[0], make_request("refuse"))
    assert isinstance(refused, RefusedReceived)
    assert (refused.code, refused.message, refused.hint) == ("busy", "the queue is full", "Ask again.")


async def test_a_mistake_in_the_handler_is_an_internal_error_and_nothing_worse(pair, caplog):
    _, failed = await answers(pair[0], make_request("raise"))
    assert isinstance(failed, FailedReceived)
    assert failed.code == "internal"
    assert "a mistake" in caplog.text
    assert isinstance((await answers(pair[0], make_request()))[-1], ResultReceived)


async def test_leaving_cancels_at_the_other_side(pair, autojump_clock):
    asking, answering, doubler = pair
    with trio.move_on_after(1):
        await answers(asking, make_request("wait"))
    await trio.testing.wait_all_tasks_blocked()
    assert doubler.cancelled == 1
    assert asking.open_requests == answering.open_requests == 0


async def test_hanging_up_ends_everything_on_both_sides(pair):
    asking, answering, doubler = pair
    events = []

    async def ask():
        events.extend(await answers(asking, make_request("wait")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await doubler.started.wait()
        answering.close()
    assert events[-1].code == ErrorCode.PEER_LOST
    assert doubler.cancelled == 1
    with pytest.raises(AccelError, match="peer-lost"):
        asking.request(make_request(), b"")


async def test_a_slow_reader_holds_the_writer_back(pair):
    asking, answering, _ = pair
    async with asking.request(make_request("chunks"), b"") as exchange:
        most, offsets = 0, []
        async for event in exchange:
            most = max(most, answering.session.queued_bytes)
            if isinstance(event, ChunkReceived):
                offsets.append(event.offset)
    assert offsets == list(range(1000))
    assert most <= (1 << 20) + 6000


async def test_text_that_nobody_reads_is_bounded_in_size(pair, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.exchanges._MAX_WAITING_BYTES", 100_000)
    asking, _, _ = pair
    async with asking.request(make_request("chunks"), b"") as exchange:
        while not exchange._ended:
            await trio.lowlevel.checkpoint()
        events = [event async for event in exchange]
    assert isinstance(events[-1], FailedReceived)
    assert events[-1].code == ErrorCode.TOO_LARGE
    assert sum(len(event.text) for event in events if isinstance(event, ChunkReceived)) <= 105_000
    assert asking.open_requests == 0


async def test_text_that_is_read_is_not(pair, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.exchanges._MAX_WAITING_BYTES", 3_000_000)
    asking, _, _ = pair
    assert isinstance((await answers(asking, make_request("chunks")))[-1], ResultReceived)


async def test_calls(pair, autojump_clock):
    progress = []
    answer = await pair[0].call("do", {"a": 1}, timeout=5, on_progress=lambda *each: progress.append(each))
    assert answer == {"got": {"a": 1}}
    assert progress == [("working", 1, 2, "")]
    with pytest.raises(AccelError, match="no such thing"):
        await pair[0].call("fail", {}, timeout=5)
    with pytest.raises(AccelError, match="deadline-exceeded"):
        await pair[0].call("wait", {}, timeout=5)
    assert await pair[0].ping(timeout=5) >= 0


async def test_garbage_ends_the_conversation_only(nursery):
    left, right = memory_stream_pair()
    channel = Channel(right, dialler=False, handler=Doubler())
    await nursery.start(channel.run)
    await left.send_all(b"\x00\x00\x00\x05garbage that is no frame at all")
    with trio.fail_after(5):
        assert await left.receive_some(100) in (b"",)
    assert channel.closed

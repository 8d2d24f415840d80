"""Supervision, with real processes of the echo backend: killed, stopped, silent, hopeless."""

from __future__ import annotations

import logging
import os
import signal

import psutil
import pytest
import trio
from ipfs_accel_node.node.serving import worker_process
from ipfs_accel_node.node.serving.workers import Supervision, Worker
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode
from ipfs_accel_node.protocols.inference import Request
from ipfs_accel_node.protocols.inference_session import (
    AcceptedReceived,
    FailedReceived,
    ProgressReceived,
    ResultReceived,
)

QUICK = Supervision(heartbeat_s=0.05, silence_s=0.4, stop_grace_s=1.0, first_pause_s=0.02)


class Watched(Worker):
    """A worker that notes the states it goes through."""

    def __init__(self, backend="echo", supervision=QUICK, **facts):
        self.seen = []
        super().__init__(backend, 1, facts.pop("cache"), lambda: self.seen.append(self.state), supervision)

    async def ready(self, until):
        await until(lambda: self.state == "ready", "a ready worker")


@pytest.fixture
async def worker(tmp_path, nursery, until):
    worker = Watched(cache=tmp_path)
    nursery.start_soon(worker.run)
    await worker.ready(until)
    yield worker
    nursery.cancel_scope.cancel()


async def load(worker, folder, key="model"):
    return await worker.call("load", {"key": key, "folder": str(folder), "precision": "f32"}, timeout=10)


def make_request(**fields):
    facts = {
        "job_id": b"j" * 16, "attempt": 0, "model": "model", "task": "echo", "params": {}, "options": {},
        "remaining_ms": 60_000, "work": {},
    }  # fmt: skip
    return Request(**(facts | fields))


async def run_job(worker, inputs, **fields):
    async with worker.channel.request(make_request(**fields), values.pack(inputs)) as exchange:
        return [event async for event in exchange]


async def test_a_job_runs_and_says_when_its_turn_came(worker, echo_model):
    facts = await load(worker, echo_model())
    assert (facts["task"], facts["precision"]) == ("echo", "none")
    accepted, computing, result = await run_job(worker, ["hello"])
    assert isinstance(accepted, AcceptedReceived)
    assert isinstance(computing, ProgressReceived)
    assert isinstance(result, ResultReceived)
    assert values.unpack(result.payload)["echo"] == ["hello"]
    assert result.report["run_s"] >= result.report["timings"]["compute_s"] >= 0


async def test_large_inputs_and_results_pass(worker, echo_model):
    await load(worker, echo_model())
    *_, result = await run_job(worker, "x" * 3_000_000)
    assert len(result.payload) > 3_000_000


@pytest.mark.parametrize(
    ("fields", "payload", "code"),
    [
        ({"model": "other"}, values.pack([]), "model-not-here"),
        ({"task": "feature-extraction"}, values.pack([]), "unsupported-task"),
        ({}, b"\xc1", "bad-input"),
        ({"params": {"work_ms": "much"}}, values.pack([]), "bad-input"),
        ({"params": {"hold": "compute", "hold_dir": "\0"}}, values.pack([]), "internal"),
    ],
)
async def test_what_cannot_be_done_has_a_code_and_the_worker_lives_on(worker, echo_model, fields, payload, code):
    await load(worker, echo_model())
    async with worker.channel.request(make_request(**fields), payload) as exchange:
        *_, failed = [event async for event in exchange]
    assert isinstance(failed, FailedReceived)
    assert failed.code == code
    assert "\n" not in failed.message
    assert isinstance((await run_job(worker, "again"))[-1], ResultReceived)


async def test_unknown_operations_and_folders_are_refused(worker, tmp_path):
    with pytest.raises(AccelError, match="unknown-method"):
        await worker.call("dance", {}, timeout=5)
    with pytest.raises(AccelError, match="internal"):
        await load(worker, tmp_path / "nowhere")
    assert worker.state == "ready"


async def test_measuring_gives_the_speed_of_the_model(worker, echo_model):
    await load(worker, echo_model(work_ms=3))
    speed = await worker.call("measure", {"key": "model", "seconds": 0.05}, timeout=10)
    assert 0.003 <= speed["fixed_s"] < 0.05
    assert speed["count"] >= 10


async def test_a_cancelled_job_stops_and_a_waiting_one_is_never_run(worker, echo_model, held, until):
    await load(worker, echo_model())
    compute, other = held("compute"), values.pack("other")
    async with worker.channel.request(make_request(params=compute.params), other) as running:
        await until(compute.is_reached, "the held job")
        compute.forget()
        async with worker.channel.request(make_request(params=compute.params), other):
            assert await worker.channel.ping(timeout=5) < 1, "it answers while it computes"
        waiting_id = running.request_id + 2
        await worker.call("released", {"request": waiting_id}, timeout=2)
    await worker.call("released", {"request": running.request_id}, timeout=2)
    assert isinstance((await run_job(worker, "next"))[-1], ResultReceived)
    assert not compute.is_reached()


async def test_a_worker_killed_while_computing_is_replaced(worker, echo_model, held, until):
    await load(worker, echo_model())
    compute, first = held("compute"), worker.pid
    async with worker.channel.request(make_request(params=compute.params), values.pack("x")) as exchange:
        await until(compute.is_reached, "the held job")
        os.kill(worker.pid, signal.SIGKILL)
        *_, failed = [event async for event in exchange]
    assert failed.code == ErrorCode.PEER_LOST
    with pytest.raises(AccelError, match="worker-died"):
        await worker.call("probe", {}, timeout=1)
    await until(lambda: worker.pid not in (first, None) and worker.state == "ready", "another worker")
    assert worker.seen[-2:] == ["restarting", "ready"]
    await load(worker, echo_model("again"))


async def test_a_worker_killed_while_loading_says_so(worker, echo_model, held, until):
    loading = held("load")
    codes = []

    async def try_to_load():
        with pytest.raises(AccelError) as caught:
            await load(worker, echo_model(load_hold=str(loading.folder)))
        codes.append(caught.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_to_load)
        await until(loading.is_reached, "the held loading")
        os.kill(worker.pid, signal.SIGKILL)
    assert codes == ["worker-died"]


async def test_a_stopped_worker_is_killed_and_replaced(worker, until, caplog):
    stopped = worker.pid
    os.kill(stopped, signal.SIGSTOP)
    await until(lambda: worker.pid not in (stopped, None), "another worker")
    assert "no sign of life" in caplog.text
    assert not psutil.pid_exists(stopped)


async def test_one_that_keeps_dying_is_given_up_with_a_reason(tmp_path, monkeypatch, until):
    monkeypatch.setattr(worker_process, "_MODULE", "a_module_that_is_not_there")
    worker = Watched(cache=tmp_path, supervision=Supervision(first_pause_s=0.01, most_quick_deaths=3))
    with trio.fail_after(10):
        await worker.run()
    assert worker.state == "failed"
    assert "3 times" in worker.reason
    assert "a_module_that_is_not_there" in worker.reason
    with pytest.raises(AccelError, match="no-backend"):
        await worker.call("probe", {}, timeout=1)


async def test_a_backend_that_is_not_installed_is_not_tried_again(tmp_path):
    worker = Watched("no-such-backend", cache=tmp_path)
    with trio.fail_after(10):
        await worker.run()
    assert worker.seen == ["failed"]
    assert "no-such-backend" in worker.reason


async def test_nothing_is_left_behind(tmp_path, resources, until):
    before = resources()
    for _ in range(3):
        worker = Watched(cache=tmp_path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.ready(until)
            nursery.cancel_scope.cancel()
    for patience in (0, 0.001, 0.02, 0.05):
        with trio.move_on_after(patience):
            await Watched(cache=tmp_path).run()
    assert resources() == before


async def test_a_worker_ends_with_its_node_even_while_it_computes(tmp_path, worker, echo_model, held, until):
    await load(worker, echo_model())
    compute, pid = held("compute"), worker.pid
    async with worker.channel.request(make_request(params=compute.params), values.pack("x")):
        await until(compute.is_reached, "the held job")
        process = psutil.Process(pid)
        # As when the node is killed: its end of the socket closes, and it sends nothing more.
        await worker.channel._stream.aclose()
        await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "its end")


def test_what_a_worker_prints_is_bounded(caplog):
    output = worker_process.Output(logging.getLogger("ipfs_accel_node.test"))
    with caplog.at_level(logging.INFO):
        output.feed(b"begins ", 0.0)
        output.feed(b"here\n" + b"x" * 5000 + b"\n" + b"again and again\n" * 10_000, 0.0)
        output.feed(b"the end\n", 100.0)
    assert len(caplog.records) == 200 + 2
    assert caplog.messages[0] == "begins here"
    assert len(caplog.messages[1]) == 400
    assert "9802 lines" in caplog.messages[-2]
    assert output.last_words == "the end"

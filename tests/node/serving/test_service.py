"""The whole of serving, with real worker processes of the echo backend."""

from __future__ import annotations

import hashlib
import os
import signal
from dataclasses import replace

import pytest
import trio
from ipfs_accel_node.node.content.cid import RAW, format_cid, make_cid
from ipfs_accel_node.node.serving.measurements import MachineLock
from ipfs_accel_node.node.serving.residency import LEAST_BYTES
from ipfs_accel_node.node.serving.service import ServingService, ServingSettings
from ipfs_accel_node.node.serving.workers import Supervision
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.errors import AccelError
from ipfs_accel_node.protocols.inference import Request

QUICK = Supervision(heartbeat_s=0.05, silence_s=0.5, stop_grace_s=1.0, first_pause_s=0.02)


class Node:
    """A service, the models it may find, and what it told."""

    def __init__(self, folder, **settings):
        self.models = {}
        self.changes = 0
        self.lock = MachineLock(folder / "lock")
        defaults = {"backends": ("echo",), "threads": 1, "memory_bytes": None, "supervision": QUICK}
        self.serving = ServingService(
            ServingSettings(**(defaults | settings)),
            model_path=self.models.get,
            cache=folder / "cache",
            measurements_path=folder / "measurements.json",
            on_change=self._changed,
            measuring_lock=self.lock,
        )

    def _changed(self):
        self.changes += 1

    async def _take_chunk(self, offset, token_ids, text):
        raise AssertionError("echo sends none")

    def add(self, folder) -> bytes:
        cid = make_cid(RAW, hashlib.sha256(str(folder).encode()).digest())
        self.models[cid] = folder
        return cid

    @property
    def slot(self):
        return self.serving._slots[0]

    async def run(self, cid, inputs="hello", *, progress=None, **fields):
        request = make_request(cid, **fields)
        with self.serving.admit(request) as admission:
            report, payload = await self.serving.execute(
                admission,
                request,
                values.pack(inputs),
                on_progress=lambda *each: progress.append(each) if progress is not None else None,
                on_chunk=self._take_chunk,
            )
        return report, values.unpack(payload)

    def is_idle(self) -> bool:
        counts = self.slot.queue.scheduler.counts
        return self.slot.queue.scheduler.length == 0 and counts.admitted == counts.finished + counts.abandoned


def make_request(cid, **fields):
    facts = {
        "job_id": os.urandom(16), "attempt": 0, "model": format_cid(cid), "task": "echo", "params": {},
        "options": {}, "remaining_ms": 30_000, "work": {"bytes": 5},
    }  # fmt: skip
    return Request(**(facts | fields))


@pytest.fixture
async def node(tmp_path, nursery, until):
    node = Node(tmp_path)
    await nursery.start(node.serving.run)
    await until(lambda: not node.serving.is_probing, "a probed backend")
    yield node
    nursery.cancel_scope.cancel()


async def test_what_is_wanted_becomes_warm_measured_and_offered(node, echo_model):
    cid = node.add(echo_model(work_ms=2))
    with trio.fail_after(10):
        await node.serving.warm(cid, "echo")
    (offer,) = node.serving.offers()
    assert (offer.cid, offer.backend, offer.task, offer.precision, offer.warm) == (cid, "echo", "echo", "none", True)
    assert 0.002 <= offer.speed.fixed_s < 0.1
    assert offer.speed.unit == "bytes"
    assert node.serving.memory()["used"] == LEAST_BYTES
    (described,) = node.serving.describe()
    assert described["models"][0]["state"] == "warm"
    assert node.changes > 0


async def test_a_job_says_who_ran_it_and_how_long_each_part_took(node, echo_model):
    cid = node.add(echo_model(work_ms=20))
    progress = []
    report, value = await node.run(cid, "hello", progress=progress)
    assert value["echo"] == "hello"
    assert (report["backend"], report["precision"]) == ("echo", "none")
    assert report["implementation"]["library"] == "echo"
    assert report["model"] == format_cid(cid)
    assert 0.02 <= report["compute_s"] <= report["total_s"] < 5
    assert report["queue_s"] >= 0
    assert report["load_s"] > 0
    assert ("loading", 0, 1, "") in progress
    assert node.is_idle()


async def test_many_jobs_at_once_all_end_in_order(node, echo_model):
    cid = node.add(echo_model())
    await node.run(cid)
    done = []

    async def one(number):
        _, value = await node.run(cid, number)
        assert value["echo"] == number
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(one, number)
    assert sorted(done) == list(range(40))
    assert node.is_idle()


async def test_it_waits_while_another_node_of_the_machine_measures(node, tmp_path, echo_model, until):
    cid, other = node.add(echo_model()), MachineLock(tmp_path / "lock")
    assert other.try_acquire()
    node.serving.want(cid, "echo")
    await until(lambda: node.serving.offers()[0].warm, "a warm model")
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert node.serving.offers()[0].speed is None
    assert (await node.run(cid))[1]["echo"] == "hello", "jobs do not wait for a measurement"
    other.release()
    await until(lambda: node.serving.offers()[0].speed, "a measurement")


async def test_what_was_measured_is_known_after_a_restart_before_anything_is_loaded(tmp_path, echo_model, until):
    folder = echo_model(work_ms=3)
    for first in (True, False):
        node = Node(tmp_path)
        cid = node.add(folder)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.serving.run)
            await until(lambda node=node: not node.serving.is_probing)
            if first:
                await node.serving.warm(cid, "echo")
            else:
                assert node.slot.offer(cid, "echo").speed.fixed_s >= 0.003
                assert not node.slot.offer(cid, "echo").warm
            nursery.cancel_scope.cancel()


async def test_a_full_queue_and_a_short_deadline_are_refused(node, echo_model, held, until):
    cid = node.add(echo_model())
    await node.run(cid)
    compute = held("compute")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.run(cid, params=compute.params))
        await until(compute.is_reached, "the held job")
        admitted = [node.serving.admit(make_request(cid)) for _ in range(64)]
        assert [each.queue_length for each in admitted] == list(range(1, 65))
        assert admitted[-1].expected_wait_s > 0
        with pytest.raises(AccelError, match="busy"):
            node.serving.admit(make_request(cid))
        with pytest.raises(AccelError, match="deadline-exceeded"):
            node.serving.admit(make_request(cid, remaining_ms=0))
        for each in admitted:
            with each:
                pass
        compute.release()
    assert node.is_idle()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"options": {"backend": "cuda"}}, "no-backend"),
        ({"task": "feature-extraction"}, "unsupported-task"),
        ({"model": format_cid(make_cid(RAW, b"another"))}, "model-not-here"),
        ({"model": "no cid"}, "bad-cid"),
    ],
)
async def test_what_is_not_here_is_refused(node, echo_model, fields, code):
    cid = node.add(echo_model())
    with pytest.raises(AccelError, match=code):
        node.serving.admit(replace(make_request(cid), **fields))


async def test_a_folder_that_is_no_model_is_given_up_at_once(node, tmp_path):
    (tmp_path / "empty").mkdir()
    cid = node.add(tmp_path / "empty")
    with pytest.raises(AccelError, match="not-a-model"):
        await node.run(cid)
    with trio.fail_after(5):
        await node.serving.warm(cid, "echo")
    assert node.serving.offers() == []
    assert node.is_idle()


async def test_cancelling_reaches_the_worker_and_frees_the_backend(node, echo_model, held, until):
    cid = node.add(echo_model())
    await node.run(cid)
    compute = held("compute")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.run(cid, params=compute.params))
        await until(compute.is_reached, "the held job")
        nursery.cancel_scope.cancel()
    report, value = await node.run(cid, "next")
    assert value["echo"] == "next"
    assert report["queue_s"] < 5, "the held job was told to stop"
    await until(node.is_idle, "an empty queue")


async def test_a_cancelled_job_in_the_queue_is_never_run(node, echo_model, held, until):
    cid = node.add(echo_model())
    await node.run(cid)
    compute = held("compute")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.run(cid, params=compute.params))
        await until(compute.is_reached, "the held job")
        compute.forget()
        with trio.move_on_after(0.05):
            async with trio.open_nursery() as others:
                for _ in range(5):
                    others.start_soon(lambda: node.run(cid, params=compute.params))
        compute.release()
    await until(node.is_idle, "an empty queue")
    assert not compute.is_reached()


async def test_a_job_whose_worker_dies_fails_and_those_behind_it_go_on(node, echo_model, held, until):
    cid = node.add(echo_model())
    await node.run(cid)
    compute, outcomes = held("compute"), {}

    async def one(number, **params):
        try:
            _, value = await node.run(cid, number, params=params)
            outcomes[number] = value["echo"]
        except AccelError as error:
            outcomes[number] = error.code

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: one("held", **compute.params))
        await until(compute.is_reached, "the held job")
        for number in range(4):
            nursery.start_soon(one, number)
        await until(lambda: node.slot.queue.scheduler.length == 5, "four that wait")
        os.kill(node.slot.worker.pid, signal.SIGKILL)
    assert outcomes == {"held": "worker-died", 0: 0, 1: 1, 2: 2, 3: 3}
    assert node.is_idle()
    assert node.serving.describe()[0]["state"] == "ready"


async def test_a_model_that_kills_its_worker_twice_is_given_up_and_others_are_not(node, echo_model, held, until):
    loading = held("load")
    deadly, sound = node.add(echo_model("deadly", load_hold=str(loading.folder))), node.add(echo_model("sound"))
    node.serving.want(deadly, "echo")
    for _ in range(2):
        await until(loading.is_reached, "the held loading")
        loading.forget()
        os.kill(node.slot.worker.pid, signal.SIGKILL)
    await until(lambda: node.slot.resident(deadly).error, "the verdict")
    assert node.serving.offers() == []
    with pytest.raises(AccelError, match="worker-died"):
        node.serving.admit(make_request(deadly))
    assert node.serving.describe()[0]["models"][0]["error"]["code"] == "worker-died"
    _, value = await node.run(sound)
    assert value["echo"] == "hello"


async def test_after_a_death_what_was_warm_is_warm_again(node, echo_model, until):
    cid = node.add(echo_model())
    await node.serving.warm(cid, "echo")
    first = node.slot.worker.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: node.slot.worker.pid not in (first, None), "another worker")
    await until(lambda: node.serving.offers()[0].warm, "the model")


async def test_a_loading_that_takes_too_long_is_ended_and_counts_against_the_model(node, echo_model, held, until):
    node.slot._settings = replace(node.slot._settings, load_timeout_s=0.1)
    cid = node.add(echo_model(load_hold=str(held("load").folder)))
    for _ in range(2):
        with pytest.raises(AccelError, match="deadline-exceeded"):
            await node.run(cid)
    with pytest.raises(AccelError, match="deadline-exceeded"):
        node.serving.admit(make_request(cid))
    await until(lambda: node.serving.describe()[0]["state"] == "ready", "another worker")


async def test_a_worker_that_does_not_let_a_cancelled_job_go_is_replaced(tmp_path, nursery, echo_model, held, until):
    node = Node(tmp_path, supervision=replace(QUICK, silence_s=30.0))
    await nursery.start(node.serving.run)
    node.slot._jobs._stuck_after_s = 0.1
    cid, compute = node.add(echo_model()), held("compute")
    await node.run(cid)
    stuck = node.slot.worker.pid
    async with trio.open_nursery() as jobs:
        jobs.start_soon(lambda: node.run(cid, params=compute.params))
        await until(compute.is_reached, "the held job")
        os.kill(stuck, signal.SIGSTOP)
        jobs.cancel_scope.cancel()
    assert (await node.run(cid, "next"))[1]["process"] != stuck
    assert node.is_idle()
    nursery.cancel_scope.cancel()


async def test_models_that_kill_their_worker_do_not_bring_the_backend_down(node, echo_model, held, until):
    loading = held("load")
    for number in range(3):
        deadly = node.add(echo_model(f"deadly {number}", load_hold=str(loading.folder)))
        node.serving.want(deadly, "echo")
        for _ in range(2):
            await until(loading.is_reached, "the held loading")
            loading.forget()
            os.kill(node.slot.worker.pid, signal.SIGKILL)
        await until(lambda cid=deadly: node.slot.resident(cid).error, "the verdict")
    _, value = await node.run(node.add(echo_model("sound")))
    assert value["echo"] == "hello"


async def test_the_least_recently_used_makes_room_and_one_in_use_never_does(tmp_path, nursery, echo_model, held, until):
    node = Node(tmp_path, memory_bytes=2 * LEAST_BYTES)
    await nursery.start(node.serving.run)
    busy, idle, newcomer = (node.add(echo_model(name)) for name in ("busy", "idle", "newcomer"))
    compute = held("compute")
    async with trio.open_nursery() as jobs:
        await node.run(busy)
        await node.run(idle)
        jobs.start_soon(lambda: node.run(busy, params=compute.params))
        await until(compute.is_reached, "the held job")
        jobs.start_soon(node.run, newcomer)
        await until(lambda: not node.slot.resident(idle).is_warm, "the idle one's end")
        assert node.slot.resident(busy).is_warm
        compute.release()
    warm = {resident.cid for resident in node.slot.residents if resident.is_warm}
    assert warm == {busy, newcomer}
    assert node.serving.memory() == {"limit": 2 * LEAST_BYTES, "used": 2 * LEAST_BYTES}
    nursery.cancel_scope.cancel()


async def test_a_model_that_never_fits_is_refused_with_what_to_do(tmp_path, nursery, echo_model):
    node = Node(tmp_path, memory_bytes=LEAST_BYTES - 1)
    await nursery.start(node.serving.run)
    cid = node.add(echo_model())
    for _ in range(3):
        with pytest.raises(AccelError, match="out-of-memory") as caught:
            await node.run(cid)
    assert "--memory" in caught.value.hint
    nursery.cancel_scope.cancel()


async def test_a_model_in_use_is_not_unloaded_and_an_idle_one_is(node, echo_model, held, until):
    cid = node.add(echo_model())
    await node.serving.warm(cid, "echo")
    compute = held("compute")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.run(cid, params=compute.params))
        await until(compute.is_reached, "the held job")
        with pytest.raises(AccelError, match="model-in-use"):
            await node.serving.unload(cid)
        assert node.serving.offers()
        compute.release()
    await node.serving.unload(cid)
    assert node.serving.offers() == []
    assert node.serving.memory()["used"] == 0


async def test_a_model_can_be_removed_while_it_is_loading(node, echo_model, held, until):
    loading = held("load")
    cid = node.add(echo_model(load_hold=str(loading.folder)))
    node.serving.want(cid, "echo")
    await until(loading.is_reached, "the held loading")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.serving.unload, cid)
        await trio.testing.wait_all_tasks_blocked(0.01)
        loading.release()
    assert node.serving.memory()["used"] == 0
    assert node.slot.residents == []


async def test_a_job_that_waits_for_a_backend_that_fails_is_told_why(tmp_path, nursery, echo_model, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.serving.worker_process._MODULE", "not_there")
    node = Node(tmp_path)
    await nursery.start(node.serving.run)
    with pytest.raises(AccelError, match="not_there") as caught:
        await node.run(node.add(echo_model()))
    assert caught.value.code == "no-backend"
    nursery.cancel_scope.cancel()


def test_a_backend_that_nobody_knows_is_said_at_once(tmp_path):
    with pytest.raises(AccelError, match="backend-missing"):
        Node(tmp_path, backends=("abacus",))


async def test_nothing_is_left_behind(tmp_path, echo_model, held, until, resources):
    before = resources()
    compute = held("compute")
    folder = echo_model()
    for _ in range(2):
        node = Node(tmp_path)
        cid = node.add(folder)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.serving.run)
            nursery.start_soon(lambda node=node, cid=cid: node.run(cid, params=compute.params))
            await until(compute.is_reached, "the held job")
            compute.forget()
            nursery.cancel_scope.cancel()
        assert node.slot.queue.scheduler.length == 0
    assert resources() == before

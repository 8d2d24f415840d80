"""The whole of serving, with real worker processes of the echo backend."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio
from ipfs_accel_node.node.content.cid import RAW, format_cid, make_cid
from ipfs_accel_node.node.serving.measurements import MachineLock
from ipfs_accel_node.node.serving.residency import LEAST_BYTES
from ipfs_accel_node.protocols.errors import AccelError


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


async def test_a_job_that_waited_for_the_loading_does_not_wait_for_the_measuring(node, echo_model, held, until):
    load, compute = held("load"), held("compute")
    cid = node.add(echo_model(load_hold=str(load.folder)))
    node.serving.want(cid, "echo")
    await until(load.is_reached, "a model that is loading")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(node.run, cid, params=compute.params))
        await until(lambda: node.slot.queue.scheduler.length == 2, "a job that waits")
        load.release()
        await until(compute.is_reached, "the job's turn")
        assert node.serving.offers()[0].speed is None
        compute.release()
    await until(lambda: node.serving.offers()[0].speed, "a measurement")


async def test_what_was_measured_is_known_after_a_restart_before_anything_is_loaded(
    tmp_path, echo_model, until, make_node
):
    folder = echo_model(work_ms=3)
    for first in (True, False):
        node = make_node(tmp_path)
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
        admitted = [node.serving.admit(node.request(cid)) for _ in range(64)]
        assert [each.queue_length for each in admitted] == list(range(1, 65))
        assert admitted[-1].expected_wait_s > 0
        with pytest.raises(AccelError, match="busy"):
            node.serving.admit(node.request(cid))
        with pytest.raises(AccelError, match="deadline-exceeded"):
            node.serving.admit(node.request(cid, remaining_ms=0))
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
        node.serving.admit(replace(node.request(cid), **fields))


async def test_a_folder_that_is_no_model_is_given_up_at_once(node, tmp_path):
    (tmp_path / "empty").mkdir()
    cid = node.add(tmp_path / "empty")
    with pytest.raises(AccelError, match="not-a-model"):
        await node.run(cid)
    with trio.fail_after(5):
        await node.serving.warm(cid, "echo")
    assert node.serving.offers() == []
    assert node.is_idle()


async def test_the_least_recently_used_makes_room_and_one_in_use_never_does(
    tmp_path, nursery, echo_model, held, until, make_node
):
    node = make_node(tmp_path, memory_bytes=2 * LEAST_BYTES)
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


async def test_a_model_that_never_fits_is_refused_with_what_to_do(tmp_path, nursery, echo_model, make_node):
    node = make_node(tmp_path, memory_bytes=LEAST_BYTES - 1)
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


def test_a_backend_that_nobody_knows_is_said_at_once(tmp_path, make_node):
    with pytest.raises(AccelError, match="backend-missing"):
        make_node(tmp_path, backends=("abacus",))

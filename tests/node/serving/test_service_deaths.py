"""Serving when callers leave and workers die: every job ends once, nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import trio
from ipfs_accel_node.node.serving.workers import Supervision
from ipfs_accel_node.protocols.errors import AccelError


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
        await until(lambda: node.slot.queue.scheduler.length == 1, "the worker's word that it dropped them")
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
        node.serving.admit(node.request(deadly))
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
        node.serving.admit(node.request(cid))
    await until(lambda: node.serving.describe()[0]["state"] == "ready", "another worker")


async def test_a_worker_that_does_not_let_a_cancelled_job_go_is_replaced(
    tmp_path, nursery, echo_model, held, until, make_node
):
    node = make_node(tmp_path, supervision=Supervision(heartbeat_s=0.05, silence_s=30.0, first_pause_s=0.02))
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


async def test_a_job_that_waits_for_a_backend_that_fails_is_told_why(
    tmp_path, nursery, echo_model, monkeypatch, make_node
):
    monkeypatch.setattr("ipfs_accel_node.node.serving.worker_process._MODULE", "not_there")
    node = make_node(tmp_path)
    await nursery.start(node.serving.run)
    with pytest.raises(AccelError, match="not_there") as caught:
        await node.run(node.add(echo_model()))
    assert caught.value.code == "no-backend"
    nursery.cancel_scope.cancel()


async def test_nothing_is_left_behind(tmp_path, echo_model, held, until, resources, make_node):
    before = resources()
    compute = held("compute")
    folder = echo_model()
    for _ in range(2):
        node = make_node(tmp_path)
        cid = node.add(folder)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.serving.run)
            nursery.start_soon(lambda node=node, cid=cid: node.run(cid, params=compute.params))
            await until(compute.is_reached, "the held job")
            compute.forget()
            nursery.cancel_scope.cancel()
        assert node.slot.queue.scheduler.length == 0
    assert resources() == before

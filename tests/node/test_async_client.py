"""The asynchronous client on asyncio and on trio, against a door that answers as told."""

from __future__ import annotations

import time

import anyio
import numpy as np
import pytest
from ipfs_accel_node import AccelError, AsyncClient, JobError
from ipfs_accel_node.node import async_connection
from ipfs_accel_node.protocols.inference_session import Cancelled, RequestReceived


@pytest.fixture(params=["asyncio", "trio"])
def run(request):
    """Runs an asynchronous function on either library, with a bound."""

    def run(main):
        async def bounded():
            with anyio.fail_after(20):
                await main()

        anyio.run(bounded, backend=request.param)

    return run


@pytest.fixture
def quick(monkeypatch):
    """The node gets no time beyond the deadline to say that it has passed."""
    monkeypatch.setattr(async_connection, "GRACE_S", 0.0)


def test_a_hundred_jobs_at_once_each_get_their_own_answer(run, open_door):
    door = open_door(piece=1000)
    got = {}

    async def main():
        async with AsyncClient(door.data_dir) as client, anyio.create_task_group() as tasks:

            async def ask(number):
                completed = await client.run("m", "t", np.full(1000, number))
                got[number] = set(completed.value.tolist())

            for number in range(100):
                tasks.start_soon(ask, number)

    run(main)
    assert got == {number: {number} for number in range(100)}


def test_values_progress_and_report(run, open_door):
    door = open_door()
    told = []

    async def main():
        async with AsyncClient(door.data_dir) as client:
            completed = await client.run("m", "t", {"a": [1, b"x"]}, on_progress=lambda *what: told.append(what))
            assert completed.value == {"a": [1, b"x"]}
            assert completed.report == {"model": "m"}
            assert (await client.run("m", "t", bytes(2_000_000))).value == bytes(2_000_000)
            assert await client.embed("m", ["a", "b"]) == ["a", "b"]
            assert await client.model_info("x") == {"method": "model.info", "model": "x"}
            assert await client.remove_model("x") == {"method": "model.rm", "model": "x"}
            assert await client.pin_model("x") == {"method": "pin.add", "model": "x"}
            assert await client.unpin_model("x") == {"method": "pin.rm", "model": "x"}
            assert await client.pause(wait_s=2.5) == {"method": "pause", "wait_s": 2.5}
            assert await client.resume() == {"method": "resume"}
            assert (await client.add_model("x"))["path"].startswith("/")
            assert (await client.get_model("x", "n"))["name"] == "n"
            assert await client.config() == {"method": "config"}
            assert await client.peers() == await client.models() == ["method"]

    run(main)
    assert told == [("running", 1, 2, "m")]


def test_cancelling_the_task_cancels_the_job(run, open_door):
    door = open_door("nothing")

    async def main():
        async with AsyncClient(door.data_dir) as client:
            with anyio.move_on_after(0.05) as scope:
                await client.run("m", "t", "x")
            assert scope.cancelled_caught
            await anyio.to_thread.run_sync(door.wait_for, Cancelled)

    run(main)


def test_a_job_ends_at_its_own_deadline_whatever_the_node_does(run, open_door, quick):
    door = open_door("nothing", reads=False)

    async def main():
        async with AsyncClient(door.data_dir, timeout=0.2) as client:
            began = time.monotonic()
            for job in (client.run("m", "t", bytes(2_000_000)), client.embed("m", "x"), client.status(timeout=0.1)):
                with pytest.raises(AccelError, match="deadline-exceeded"):
                    await job
            assert time.monotonic() - began < 5

    run(main)


def test_a_callback_that_raises_harms_nobody(run, open_door, caplog):
    door = open_door()

    def fail(*_):
        raise ValueError("mine")

    async def main():
        async with AsyncClient(door.data_dir) as client:
            assert (await client.run("m", "t", "x", on_progress=fail)).value == "x"

    run(main)
    assert "on_progress failed" in caplog.text


def test_a_node_that_dies_fails_what_is_open_and_is_found_again(run, open_door):
    door = open_door("nothing")

    async def main():
        async with AsyncClient(door.data_dir) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client)
                await anyio.to_thread.run_sync(door.wait_for, RequestReceived)
                await anyio.to_thread.run_sync(door.close)
            with pytest.raises(AccelError, match="not-running"):
                await client.status()
            open_door()
            assert (await client.run("m", "t", "again")).value == "again"

    async def ask(client):
        with pytest.raises(JobError, match="the node went away") as failed:
            await client.run("m", "t", "x")
        assert failed.value.code == "peer-lost"

    run(main)


def test_a_node_that_breaks_the_protocol_fails_what_is_open(run, open_door):
    door = open_door(lambda session, event: door.send(b"\xff" * 100))

    async def main():
        async with AsyncClient(door.data_dir) as client:
            with pytest.raises(JobError) as failed:
                await client.run("m", "t", "x")
            assert failed.value.code == "protocol-error"

    run(main)


def test_closing_fails_the_jobs_of_tasks_outside(run, open_door):
    door = open_door("nothing")

    async def main():
        async with anyio.create_task_group() as tasks:
            async with AsyncClient(door.data_dir) as client:
                tasks.start_soon(ask, client)
                await anyio.to_thread.run_sync(door.wait_for, RequestReceived)
            with pytest.raises(RuntimeError, match="closed"):
                await client.status()

    async def ask(client):
        with pytest.raises(JobError, match="closed"):
            await client.run("m", "t", "x")

    run(main)


def test_bad_arguments_are_told_before_anything_is_sent(run, open_door):
    door = open_door()

    async def main():
        async with AsyncClient(door.data_dir) as client:
            for given in ({"timeout": float("nan")}, {"model": ""}, {"inputs": object()}, {"job_id": b"x"}):
                with pytest.raises(AccelError, match="bad-input"):
                    await client.run(**{"model": "m", "task": "t", "inputs": "x", **given})
            assert (await client.run("m", "t", "fine")).value == "fine"

    run(main)
    assert len(door.wait_for(RequestReceived)) == 1


def test_without_a_node_it_says_how_to_start_one(run, tmp_path):
    async def main():
        with pytest.raises(AccelError, match="not-running"):
            async with AsyncClient(tmp_path):
                pass
        with pytest.raises(RuntimeError, match="entered"):
            await AsyncClient(tmp_path).status()

    run(main)


def test_it_can_be_made_before_the_event_loop_runs(run, open_door):
    door = open_door()
    client = AsyncClient(door.data_dir)

    async def main():
        async with client:
            assert await client.status() == {"method": "status"}

    run(main)

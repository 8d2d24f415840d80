"""Both clients against a real node, and what they say when it is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import anyio
import numpy as np
import pytest
from cluster import NodeProcess
from ipfs_accel_node import AccelError, AsyncClient, Client, JobError


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "echo"}))
    with NodeProcess("node", folder / "data", "--backends", "echo") as process:
        process.wait_ready()
        with process.client() as client:
            client.add_model(model, "echo")
        yield process


@pytest.fixture
def client(node):
    with node.client() as client:
        yield client


def idle(client: Client) -> bool:
    return client.status()["jobs"]["running"] == 0


def test_values_and_arrays_come_back_as_they_went(client):
    inputs = {"text": "häl lo", "array": np.arange(6, dtype=np.float32).reshape(2, 3), "list": [1, None, True, b"x"]}
    out = client.submit("echo", "echo", inputs).result(20)["echo"]
    assert np.array_equal(out.pop("array"), inputs.pop("array"))
    assert out == inputs


def test_large_inputs_travel_in_pieces(client):
    array = np.random.default_rng(0).random(5_000_000)
    assert np.array_equal(client.submit("echo", "echo", array).result(30)["echo"], array)


def test_a_hundred_threads_each_get_their_own(client):
    got = {}

    def ask(number):
        got[number] = client.submit("echo", "echo", number).result(30)["echo"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {number: number for number in range(100)}


def test_a_burst_beyond_every_queue_waits_its_turn(client):
    jobs = [client.submit("echo", "echo", number, timeout=60, work_ms=2) for number in range(400)]
    assert [job.result(60)["echo"] for job in jobs] == list(range(400))
    assert max(len(job.report["attempts"]) for job in jobs) <= 3
    assert idle(client)


def test_cancelling_reaches_the_worker(client, node):
    job = client.submit("echo", "echo", "x", work_ms=30_000)
    node.wait_for("the job to run", lambda: not idle(client) or None, 10)
    job.cancel()
    with pytest.raises(JobError, match="cancelled"):
        job.result(5)
    node.wait_for("the job to end", lambda: idle(client) or None, 10)
    assert client.submit("echo", "echo", "next").result(10)["echo"] == "next"


def test_a_client_that_hangs_up_cancels_its_jobs(client, node):
    leaving = node.client()
    job = leaving.submit("echo", "echo", "x", work_ms=30_000)
    node.wait_for("the job to run", lambda: not idle(client) or None, 10)
    leaving.close()
    with pytest.raises(JobError, match="peer-lost"):
        job.result(5)
    node.wait_for("the job to end", lambda: idle(client) or None, 10)


def test_one_deadline_holds_for_everything(client):
    job = client.submit("echo", "echo", "x", timeout=0.5, work_ms=30_000)
    with pytest.raises(JobError, match="deadline-exceeded"):
        job.result(10)
    with pytest.raises(TimeoutError):
        client.submit("echo", "echo", "x", work_ms=2000).result(0.05)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("nonsense", "echo", "x"), "unknown-model"), (("echo", "feature-extraction", "x"), "unsupported-task"),
     (("", "echo", "x"), "bad-input"), (("echo", "echo", object()), "bad-input"),
     (("bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq", "echo", "x"), "unknown-model")],
)  # fmt: skip
def test_mistakes_are_told_with_a_code_and_a_hint(client, arguments, code):
    with pytest.raises(AccelError) as failed:
        client.submit(*arguments).result(20)
    assert failed.value.code == code


def test_more_mistakes(client):
    with pytest.raises(AccelError, match="over the limit") as failed:
        client.submit("echo", "echo", bytes(65 << 20))
    assert failed.value.code == "too-large"
    with pytest.raises(AccelError, match="no node here is called"):
        client.submit("echo", "echo", "x", on="nobody").result(10)
    with pytest.raises(AccelError, match="unknown-model"):
        client.model_info("nonsense")
    with pytest.raises(AccelError, match="no folder"):
        client.add_model("/nowhere")
    with pytest.raises(AccelError, match="more than nothing"):
        client.submit("echo", "echo", "x", timeout=0)


def test_a_model_that_is_used_is_not_removed(client, node, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "echo", "other": 1}))
    cid = client.add_model(tmp_path, "other")["cid"]
    job = client.submit("other", "echo", "x", work_ms=1500)
    node.wait_for("the job to run", lambda: not idle(client) or None, 10)
    with pytest.raises(AccelError, match="model-in-use"):
        client.remove_model("other")
    job.result(20)
    assert client.remove_model("other")["cid"] == cid
    with pytest.raises(AccelError, match="unknown-model"):
        client.model_info("other")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_asynchronous_client(node, backend):
    async def main():
        async with AsyncClient(node.data_dir) as client:
            completed = await client.run("echo", "echo", ["a"])
            assert completed.value["echo"] == ["a"]
            assert completed.report["node_name"] == "node"
            with pytest.raises(JobError, match="unknown-model"):
                await client.run("nonsense", "echo", "x")
            job = await client.submit("echo", "echo", "beside")
            assert (await job.result(20))["echo"] == "beside"
            assert (job.done(), job.report["job_id"]) == (True, job.job_id)
            slow = await client.submit("echo", "echo", "x", work_ms=30_000)
            with pytest.raises(TimeoutError):
                await slow.result(0.1)
            slow.cancel()
            with pytest.raises(JobError, match="cancelled"):
                await slow.result(5)
            failing = await client.submit("nonsense", "echo", "x")
            with pytest.raises(JobError, match="unknown-model"):
                await failing.result(5)
            got = []

            async def ask(number):
                got.append((await client.run("echo", "echo", number)).value["echo"])

            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(ask, number)
            assert sorted(got) == list(range(30))
            with anyio.move_on_after(0.3):
                await client.run("echo", "echo", "x", work_ms=30_000)
            with anyio.fail_after(10):
                while (await client.status())["jobs"]["running"]:
                    await anyio.sleep(0.02)
            left = await client.submit("echo", "echo", "x", work_ms=30_000)
        with pytest.raises(JobError, match="closed"):
            await left.result(5)

    anyio.run(main, backend=backend)


def test_without_a_node_it_says_how_to_start_one(tmp_path):
    with pytest.raises(AccelError) as failed:
        Client(tmp_path)
    assert (failed.value.code, "ipfs-accel-node start" in failed.value.hint) == ("not-running", True)

    async def main():
        async with AsyncClient(tmp_path):
            pass

    with pytest.raises(AccelError, match="not-running"):
        anyio.run(main)


def test_a_node_that_dies_fails_its_jobs_and_is_found_again(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "echo"}')
    with NodeProcess("mortal", tmp_path / "data", "--backends", "echo") as node:
        node.wait_ready()
        client = node.client()
        client.add_model(model, "echo")
        job = client.submit("echo", "echo", "x", work_ms=30_000)
        node.kill()
        with pytest.raises(JobError, match="the node went away"):
            job.result(10)
        with pytest.raises(AccelError, match="not-running"):
            client.status()
    with NodeProcess("mortal", tmp_path / "data", "--backends", "echo") as node:
        node.wait_ready()
        assert client.submit("echo", "echo", "again").result(20)["echo"] == "again"
        client.close()


def test_the_client_imports_nothing_heavy():
    program = (
        "import sys; import ipfs_accel_node; ipfs_accel_node.Client;"
        "print(sorted(set(sys.modules) & {'libp2p', 'trio', 'rich', 'numpy', 'torch', 'multiformats'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]"

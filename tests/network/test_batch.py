"""Many jobs at once on real nodes: spread, left early, killed in the middle, and in bounded memory."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time

import anyio
import pytest
from cluster import PROGRAM, NodeProcess, make_echo_model, run_program
from ipfs_accel_node import AsyncClient

#: A batch with 4,000 lines of 4 KB may need this much more memory at its most than one with 100.
GROWTH_KB = 12_000
LONG = "x" * 4096
KILLED_AT = (30, 150, 290)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    model = make_echo_model(folder / "model", work_ms=0)
    with NodeProcess("node", folder / "data", "--backends", "echo") as process:
        process.wait_ready()
        with process.client() as client:
            client.add_model(model, "echo")
        yield process


def running(client) -> int:
    return client.status()["jobs"]["running"]


def wait_idle(node, client):
    node.wait_for("its jobs to end", lambda: running(client) == 0 or None, 10)


def test_a_map_that_is_left_early_leaves_nothing_running(node):
    with node.client() as client:
        found = client.map("echo", itertools.count(), concurrency=16, work_ms=50)
        assert [next(found)["echo"] for _ in range(5)] == list(range(5))
        assert running(client) > 0
        found.close()
        wait_idle(node, client)
        assert [each["echo"] for each in client.map("echo", ["after"])] == ["after"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_map_that_is_left_early_leaves_nothing_running(node, backend):
    async def main():
        async with AsyncClient(node.data_dir) as client:
            async for value in client.map("echo", itertools.count(), concurrency=16, work_ms=50):
                if value["echo"] == 4:
                    break
            with anyio.fail_after(10):
                while (await client.status())["jobs"]["running"]:
                    await anyio.sleep(0.02)
            assert [each["echo"] async for each in client.map("echo", ["after"])] == ["after"]

    anyio.run(main, backend=backend)


def test_a_map_is_spread_over_the_cluster(node, tmp_path):
    model = make_echo_model(tmp_path / "model", work_ms=30)
    token = node.wait_ready()["token"]
    other = NodeProcess("other", tmp_path / "data", "--backends", "echo", "--join", token)
    with other, node.client() as here, other.client() as there:
        cid = here.add_model(model, "slow")["cid"]
        there.add_model(model, "slow")
        node.wait_offer(cid)
        node.wait_measured(cid)
        processes = {value["process"] for value in here.map(cid, range(40), concurrency=8)}
        here.remove_model("slow")
    assert len(processes) == 2


def command(node, given, out, *more):
    arguments = ["run", "echo", "--batch", given, "--out", out, "--json", "--data-dir", node.data_dir, *more]
    return [PROGRAM, *map(str, arguments)]


def run(node, given, out, *more):
    """Runs a batch to its end: (exit status, its summary)."""
    done = subprocess.run(command(node, given, out, *more), capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def numbers(path, count, text=""):
    path.write_text("".join(f"{json.dumps({'input': f'{number} {text}', 'id': number})}\n" for number in range(count)))
    return path


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_lines(path, count, process):
    end = time.monotonic() + 60
    while lines(path) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


def untimed(path):
    """The lines of an output but for what differs from run to run."""
    documents = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(each.get("index"), each.get("id"), each.get("value", {}).get("echo")) for each in documents]


def test_killed_again_and_again_a_batch_comes_to_the_same_end(node, tmp_path):
    given, whole, out = numbers(tmp_path / "in", 400), tmp_path / "whole", tmp_path / "out"
    assert run(node, given, whole)[0] == 0
    with node.client() as client:
        before = client.status()["jobs"]["completed"]
        slowly = command(node, given, out, "--param", "work_ms=5", "--concurrency", "4")
        for goal in KILLED_AT:
            with subprocess.Popen(slowly, stdout=subprocess.DEVNULL) as process:
                wait_lines(out, goal, process)
                process.kill()
            wait_idle(node, client)
        kept = max(0, lines(out) - 1)
        status, told = run(node, given, out, "--param", "work_ms=5")
        assert (status, told["lines"], told["failed"], told["before"]) == (0, 400, 0, kept)
        assert kept >= 289
        # What was on its way when it was killed may have run, and nothing else twice.
        assert client.status()["jobs"]["completed"] - before <= 400 + len(KILLED_AT) * 4 * 4
    assert untimed(out)[1:] == untimed(whole)[1:]


def test_a_node_that_is_killed_stops_the_batch_which_goes_on_later(tmp_path):
    given, out = numbers(tmp_path / "in", 300), tmp_path / "out"
    model = make_echo_model(tmp_path / "model", work_ms=5)
    with NodeProcess("mortal", tmp_path / "data", "--backends", "echo") as node:
        with node.client() as client:
            client.add_model(model, "echo")
        with subprocess.Popen(command(node, given, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_lines(out, 50, process)
            node.kill()
            stdout, stderr = process.communicate(timeout=30)
        assert process.returncode == 1
        assert json.loads(stdout)["error"]["code"] in ("peer-lost", "not-running")
        assert len(stderr.strip().splitlines()) == 1
    assert b'"error"' not in out.read_bytes()
    with NodeProcess("mortal", tmp_path / "data", "--backends", "echo") as node:
        with node.client() as client:
            node.wait_measured(client.model_info("echo")["cid"])
        status, told = run(node, given, out)
        assert (status, told["lines"], told["failed"]) == (0, 300, 0)
        assert told["before"] >= 49
    assert [each[1] for each in untimed(out)[1:]] == list(range(300))


def test_bad_lines_are_told_and_the_rest_goes_on(node, tmp_path):
    given, out = tmp_path / "in", tmp_path / "out"
    given.write_bytes(b'"a"\n\xff\n{"x": 1}\n{"input": "b", "params": {"work_ms": "much"}}\n"c"')
    status, told = run(node, given, out)
    assert (status, told["lines"], told["failed"]) == (1, 5, 3)
    codes = [json.loads(line).get("error", {}).get("code") for line in out.read_bytes().splitlines()[1:]]
    assert (codes[0], codes[1], codes[2], codes[4]) == (None, "bad-input", "bad-input", None)
    assert run(node, given, out, "--retry-errors")[1]["failed"] == 3
    told = run_program("run", "echo", "--batch", given, "--out", out, data_dir=node.data_dir).stdout
    assert "the first of them, line 2 is not text in UTF-8" in told


def most_memory(*arguments) -> int:
    """Runs a program to its end: the most memory that it held, in KB."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) // (1024 if sys.platform == "darwin" else 1)


def test_thousands_of_lines_in_bounded_memory(node, tmp_path):
    few, many, out = numbers(tmp_path / "few", 100, LONG), numbers(tmp_path / "many", 4_000, LONG), tmp_path / "out"
    little = most_memory(*command(node, few, tmp_path / "little", "--concurrency", "32"))
    much = most_memory(*command(node, many, out, "--concurrency", "32"))
    assert os.path.getsize(out) > 16_000_000  # noqa: PTH202
    assert lines(out) == 4_001
    assert much - little < GROWTH_KB
    assert most_memory(*command(node, many, out)) - little < GROWTH_KB, "reading what is there takes memory"

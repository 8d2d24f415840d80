"""A node, or its worker, is killed at an exact stage of a job: the job completes once, elsewhere, and nothing leaks."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
from cluster import NodeProcess
from ipfs_accel_node import Client

STAGES = ["before-admission", "load", "compute", "before-result"]


def write_echo_model(folder: Path, **settings) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "echo", "echo": settings}))
    return folder


def worker_of(node: NodeProcess) -> psutil.Process:
    (worker,) = [child for child in psutil.Process(node.pid).children() if "worker_main" in " ".join(child.cmdline())]
    return worker


def wait_until(condition, seconds=20.0, what="the condition"):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come about within {seconds} s"
        time.sleep(0.02)
    return value


def resources(node: NodeProcess) -> tuple[int, int]:
    process = psutil.Process(node.pid)
    return process.num_fds(), len(process.children(recursive=True))


class Held:
    """The hold point of one job: waits until it is reached, lets it go."""

    def __init__(self, folder: Path, stage: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.stage = folder, stage

    @property
    def params(self) -> dict[str, str]:
        return {"hold": self.stage, "hold_dir": str(self.folder)}

    def wait(self) -> None:
        wait_until((self.folder / f"{self.stage}.held").exists, what=f"the stage {self.stage}")

    def release(self) -> None:
        (self.folder / f"{self.stage}.go").touch()


@pytest.fixture
def three_nodes(tmp_path):
    """An entry node that computes nothing, and two that do."""
    with NodeProcess("entry", tmp_path / "entry", "--backends", "none") as entry:
        token = entry.wait_ready()["token"]
        with (
            NodeProcess("first", tmp_path / "first", "--backends", "echo", "--join", token) as first,
            NodeProcess("spare", tmp_path / "spare", "--backends", "echo", "--join", token) as spare,
        ):
            first.wait_ready()
            spare.wait_ready()
            yield entry, first, spare


def strike(node: NodeProcess, victim: str) -> None:
    match victim:
        case "node":
            node.kill()
        case "worker":
            worker_of(node).kill()
        case _:
            node.send_signal(signal.SIGSTOP)


def offers_of(client: Client, cid: str) -> list[str]:
    return [offer["node_name"] for model in client.models() if model["cid"] == cid for offer in model["nodes"]]


CASES = [(stage, victim) for stage in STAGES for victim in ("node", "worker")] + [("compute", "stopped node")]


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_the_job_completes_once_elsewhere(three_nodes, tmp_path, stage, victim):
    entry, first, spare = three_nodes
    held = Held(tmp_path / "hold", stage)
    settings = {"load_hold": str(held.folder)} if stage == "load" else {}
    model = write_echo_model(tmp_path / "model", **settings)
    with entry.client() as client, first.client() as at_first, spare.client() as at_spare:
        wait_until(lambda: client.status()["peers"] == 2, what="both links")
        cid = at_first.add_model(model, name="echo-model")["cid"]
        wait_until(lambda: offers_of(client, cid) == ["first"], what="the first offer")
        before = resources(entry)
        job = client.submit(cid, "echo", ["hello"], timeout=60, **held.params)
        held.wait()
        wait_until(lambda: offers_of(at_spare, cid), what="the first offer at the spare")
        at_spare.get_model(cid)
        wait_until(lambda: sorted(offers_of(client, cid)) == ["first", "spare"], what="the second offer")
        strike(first, victim)
        held.release()

        assert job.result(60)["echo"] == ["hello"]
        outcomes = [attempt["outcome"] for attempt in job.report["attempts"]]
        assert outcomes.count("ok") == 1
        assert outcomes[-1] == "ok"
        jobs = client.status()["jobs"]
        assert (jobs["running"], jobs["completed"], jobs["failed"]) == (0, 1, 0)
        wait_until(lambda: resources(entry) <= before, what="descriptors and children back where they were")
    if first.running:
        first.kill()  # one that is stopped would not take a gentler word


def test_a_node_alone_tries_again_when_its_worker_is_back(tmp_path):
    held = Held(tmp_path / "hold", "compute")
    model = write_echo_model(tmp_path / "model")
    with NodeProcess("alone", tmp_path / "alone", "--backends", "echo") as node:
        node.wait_ready()
        with node.client() as client:
            cid = client.add_model(model)["cid"]
            job = client.submit(cid, "echo", "hello", timeout=60, **held.params)
            held.wait()
            worker_of(node).kill()
            held.release()
            assert job.result(60)["echo"] == "hello"
            assert [attempt["outcome"] for attempt in job.report["attempts"]] == ["worker-died", "ok"]

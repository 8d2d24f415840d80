"""A node, or its worker, is killed at an exact stage of a job: the job completes once, elsewhere, and nothing leaks."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
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
def entry_and_fast(tmp_path):
    with NodeProcess("entry", tmp_path / "entry", "--backends", "echo") as entry:
        token = entry.wait_ready()["token"]
        with NodeProcess("fast", tmp_path / "fast", "--backends", "echo", "--join", token) as fast:
            fast.wait_ready()
            yield entry, fast


@pytest.mark.parametrize("victim", ["node", "worker"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_job_completes_once_elsewhere(entry_and_fast, tmp_path, stage, victim):
    entry, fast = entry_and_fast
    held = Held(tmp_path / "hold", stage)
    settings = {"load_hold": str(held.folder)} if stage == "load" else {}
    model = write_echo_model(tmp_path / "model", **settings)
    with Client(data_dir=entry.data_dir) as client, Client(data_dir=fast.data_dir) as at_fast:
        cid = at_fast.add_model(model, name="echo-model")["cid"]
        if stage != "load":
            entry.wait_offer(cid)
        wait_until(lambda: [each for each in client.models() if each["cid"] == cid], what="the advert")
        before = resources(entry)
        with ThreadPoolExecutor(1) as pool:
            job = client.submit(cid, "echo", ["hello"], timeout=60, **held.params)
            finished = pool.submit(job.result, 60)
            held.wait()
            (fast.kill if victim == "node" else worker_of(fast).kill)()
            held.release()
            assert finished.result(60)["echo"] == ["hello"]
        outcomes = [attempt["outcome"] for attempt in job.report["attempts"]]
        assert outcomes.count("ok") == 1
        assert client.status()["jobs"] | {"running": 0, "failed": 0} == client.status()["jobs"]
        wait_until(lambda: resources(entry)[0] <= before[0] + 2, what="descriptors back where they were")
        assert resources(entry)[1] <= before[1] + 1

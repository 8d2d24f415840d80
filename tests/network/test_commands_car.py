"""`model export` and `model import` as a user runs them: between stores, nodes and through a pipe."""

from __future__ import annotations

import subprocess

import pytest
from cluster import PROGRAM, NodeProcess, environment, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node import AsyncClient

MIB = 1 << 20


@pytest.fixture
def model(tmp_path):
    folder = make_echo_model(tmp_path / "model")
    (folder / "weights.txt").write_bytes(bytes(range(256)) * 8192)
    return folder


def test_without_a_node_and_through_a_pipe(tmp_path, model):
    one, other, third = tmp_path / "one", tmp_path / "other", tmp_path / "third"
    cid = run_json("model", "add", model, "--name", "mine", data_dir=one)["cid"]
    written = run_json("model", "export", "mine", tmp_path / "mine.car", data_dir=one)
    assert (written["cid"], written["written"]) == (cid, (tmp_path / "mine.car").stat().st_size)
    taken = run_json("model", "import", tmp_path / "mine.car", "--name", "theirs", "--gated", data_dir=other)
    assert (taken["cid"], taken["name"], taken["already"]) == (cid, "theirs", False)
    assert run_json("model", "info", "theirs", data_dir=other)["gated"] is True
    assert "here already" in run("model", "import", tmp_path / "mine.car", data_dir=other).stdout

    piped = subprocess.run(
        [PROGRAM, "model", "export", "mine", "-", "--data-dir", str(one)],
        capture_output=True, timeout=60, check=True, env=environment(),
    ).stdout  # fmt: skip
    assert piped == (tmp_path / "mine.car").read_bytes()
    command = [PROGRAM, "model", "import", "-", "--json", "--data-dir", str(third)]
    subprocess.run(command, input=piped, capture_output=True, timeout=60, check=True, env=environment())
    assert [each["cid"] for each in run_json("model", "ls", data_dir=third)] == [cid]
    assert list((third / "downloads").iterdir()) == []
    broken = subprocess.run(command, input=piped[:-5], capture_output=True, timeout=60, env=environment(), check=False)
    assert (broken.returncode, b"corrupt-content" in broken.stdout) == (1, True)
    assert list((third / "downloads").iterdir()) == []


async def test_between_nodes(tmp_path, model):
    with NodeProcess("one", tmp_path / "one", "--backends", "echo") as one, one.client() as client:
        cid = client.add_model(model, "mine")["cid"]
        states = []
        told = client.export_model("mine", tmp_path / "mine.car", on_progress=lambda state, *_: states.append(state))
        assert (told["cid"], told["written"]) == (cid, (tmp_path / "mine.car").stat().st_size)
        assert "exporting" in states
        refused = run_json("model", "export", "mine", tmp_path / "mine.car", data_dir=one.data_dir, status=2)
        assert refused["error"]["code"] == "bad-input"
        run("model", "export", "mine", tmp_path / "second.car", data_dir=one.data_dir)
        assert (tmp_path / "second.car").read_bytes() == (tmp_path / "mine.car").read_bytes()
    with NodeProcess("other", tmp_path / "other", "--backends", "echo") as other:
        other.wait_ready()
        async with AsyncClient(other.data_dir) as client:
            assert (await client.import_model(tmp_path / "mine.car", "theirs"))["cid"] == cid
            await client.export_model("theirs", tmp_path / "third.car")
        assert (tmp_path / "third.car").read_bytes() == (tmp_path / "mine.car").read_bytes()
        with other.client() as client:
            job = client.submit("theirs", "echo", ["hello"], timeout=30)
            assert job.result(30)["echo"] == ["hello"]


def test_what_cannot_be_is_told(tmp_path, model):
    data = tmp_path / "data"
    (tmp_path / "made.car").write_bytes(b"no car at all")
    for arguments, code in (
        (("import", tmp_path / "made.car"), "bad-input"),
        (("import", tmp_path / "nothing.car"), "bad-input"),
        (("import", tmp_path / "made.car", "--root", "Qm"), "bad-cid"),
        (("export", "nobody", tmp_path / "new.car"), "unknown-model"),
        (("export", "nobody", "-"), "bad-input"),
    ):
        done = run("model", *arguments, "--json", data_dir=data)
        assert done.returncode in (1, 2)
        assert f'"{code}"' in done.stdout, (arguments, done.stdout)
    cid = run_json("model", "add", model, data_dir=data)["cid"]
    with NodeProcess("other", tmp_path / "other", "--backends", "none") as other:
        other.wait_ready()
        told = run_json("model", "export", cid, tmp_path / "new.car", data_dir=other.data_dir, status=2)
        assert told["error"]["code"] == "unknown-model"

"""A paused node finishes what it has, computes nothing new, says so, and comes back."""

from __future__ import annotations

import json

import pytest
from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node.protocols.errors import AccelError
from striking import wait_until


def state_of(client, name) -> str:
    return next((peer["state"] for peer in client.peers() if peer["name"] == name), "")


def where(client, **options) -> str:
    job = client.submit("mine", "echo", ["x"], timeout=30, **options)
    job.result()
    return job.report["node_name"]


@pytest.fixture
def pair(tmp_path):
    """Two nodes that both run the model `mine`."""
    model = make_echo_model(tmp_path / "model")
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk:
        joined = ("--backends", "echo", "--join", desk.wait_ready()["token"])
        laptop = NodeProcess("laptop", tmp_path / "laptop", *joined)
        with laptop, desk.client() as at_desk, laptop.client() as at_laptop:
            for client in (at_desk, at_laptop):
                cid = client.add_model(model, "mine")["cid"]
            for node in (desk, laptop):
                node.wait_measured(cid)
                node.wait_offer(cid)
            yield desk, laptop, at_desk, at_laptop


def test_a_paused_node_gets_no_job_and_comes_back(pair):
    desk, laptop, at_desk, at_laptop = pair
    assert where(at_desk, on="local") == "desk"
    assert run_json("pause", data_dir=desk.data_dir)["state"] == "paused"
    wait_until(lambda: state_of(at_laptop, "desk") == "paused")
    assert {where(at_desk) for _ in range(4)} == {"laptop"}
    assert {where(at_laptop) for _ in range(4)} == {"laptop"}
    assert "paused" in run("status", data_dir=desk.data_dir).stdout
    assert "paused" in run("peers", data_dir=laptop.data_dir).stdout
    for client, on in ((at_desk, "local"), (at_laptop, "desk")):
        with pytest.raises(AccelError) as refused:
            where(client, on=on)
        assert refused.value.code == "paused"
        assert "ipfs-accel-node resume" in refused.value.hint
    assert run_json("resume", data_dir=desk.data_dir)["state"] == "ready"
    wait_until(lambda: state_of(at_laptop, "desk") == "ready")
    assert where(at_desk, on="local") == "desk"
    assert where(at_laptop, on="desk") == "desk"


def test_pausing_waits_for_what_runs(tmp_path):
    hold = tmp_path / "hold"
    hold.mkdir()
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk, desk.client() as client:
        cid = client.add_model(make_echo_model(tmp_path / "model"), "mine")["cid"]
        desk.wait_measured(cid)
        job = client.submit("mine", "echo", ["x"], timeout=60, hold="compute", hold_dir=str(hold))
        wait_until((hold / "compute.held").exists)
        (listed,) = client.status()["running"]
        assert (listed["model"], listed["task"], listed["node_name"], listed["own"]) == ("mine", "echo", "desk", True)
        late = run("pause", "--wait", "--timeout", "0.3", "--json", data_dir=desk.data_dir)
        assert (late.returncode, json.loads(late.stdout)["error"]["code"]) == (1, "deadline-exceeded")
        assert client.pause()["in_hand"] == 1
        with pytest.raises(AccelError) as refused:
            client.submit("mine", "echo", ["y"], timeout=10).result()
        assert refused.value.code == "paused"
        (hold / "compute.go").touch()
        assert client.pause(wait_s=30) == {"state": "paused", "in_hand": 0}
        assert job.result()["echo"] == ["x"]
        assert client.status()["running"] == []
        desk.stop()
        again = NodeProcess("desk", tmp_path / "desk", "--backends", "echo")
        with again, again.client() as restarted:
            assert restarted.status()["state"] == "ready"


def test_nothing_is_loaded_or_measured_while_paused(tmp_path):
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk, desk.client() as client:
        wait_until(lambda: client.status()["backends"][0]["state"] == "ready")
        client.pause()
        cid = client.add_model(make_echo_model(tmp_path / "model"), "mine")["cid"]
        (offer,) = wait_until(lambda: client.model_info(cid)["nodes"])
        assert (offer["warm"], offer["fixed_ms"]) == (False, None)
        assert client.pause(wait_s=30)["in_hand"] == 0
        client.resume()
        desk.wait_measured(cid)


def test_pausing_ends_what_is_measured_and_resuming_takes_it_up(tmp_path):
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk, desk.client() as client:
        cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=200), "mine")["cid"]
        wait_until(lambda: any(each["state"] == "measuring" for each in client.status()["backends"][0]["models"]))
        assert client.pause(wait_s=30)["in_hand"] == 0
        (offer,) = client.model_info(cid)["nodes"]
        assert offer["fixed_ms"] is None
        client.resume()
        desk.wait_measured(cid)

"""Pins: a pinned model stays, with a node and without one."""

from __future__ import annotations

import asyncio

import pytest
from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node import AsyncClient
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture
def model(tmp_path):
    return make_echo_model(tmp_path / "model")


def check_the_life_of_a_pin(data_dir, cid):
    assert run_json("pin", "ls", data_dir=data_dir) == []
    assert run_json("pin", "add", "mine", data_dir=data_dir)["pinned"] is True
    assert [each["cid"] for each in run_json("pin", "ls", data_dir=data_dir)] == [cid]
    assert [each["pinned"] for each in run_json("model", "ls", data_dir=data_dir)] == [True]
    assert "pinned" in run("model", "ls", data_dir=data_dir).stdout
    assert "pinned on this node" in run("model", "info", "mine", data_dir=data_dir).stdout
    refused = run_json("model", "rm", "mine", data_dir=data_dir, status=1)["error"]
    assert refused["code"] == "model-pinned"
    assert "pin rm mine" in refused["hint"]
    assert run_json("pin", "rm", cid[:20], data_dir=data_dir)["pinned"] is False
    assert "Nothing is pinned" in run("pin", "ls", data_dir=data_dir).stdout
    assert run_json("model", "rm", "mine", data_dir=data_dir)["cid"] == cid


def test_without_a_node(tmp_path, model):
    cid = run_json("model", "add", model, "--name", "mine", data_dir=tmp_path / "data")["cid"]
    check_the_life_of_a_pin(tmp_path / "data", cid)
    missing = run_json("pin", "add", "mine", data_dir=tmp_path / "data", status=2)
    assert missing["error"]["code"] == "unknown-model"


def test_with_a_node_and_over_its_restart(tmp_path, model):
    with NodeProcess("desk", tmp_path / "data", "--backends", "echo") as node, node.client() as client:
        cid = client.add_model(model, "mine")["cid"]
        check_the_life_of_a_pin(node.data_dir, cid)
        client.add_model(model, "mine")
        client.pin_model("mine")
    with NodeProcess("desk", tmp_path / "data", "--backends", "echo") as node:
        node.wait_ready()
        with node.client() as client:
            assert [each["cid"] for each in client.pins()] == [cid]
            with pytest.raises(AccelError) as refused:
                client.remove_model("mine")
            assert refused.value.code == "model-pinned"
            client.add_model(model, "renamed")
            assert [each["name"] for each in client.pins()] == ["renamed"]


def test_a_model_that_only_a_peer_has_is_fetched_first(tmp_path, model):
    with NodeProcess("desk", tmp_path / "desk", "--backends", "echo") as desk, desk.client() as client:
        cid = client.add_model(model, "mine")["cid"]
        joined = ("--backends", "none", "--join", desk.wait_ready()["token"])
        with NodeProcess("laptop", tmp_path / "laptop", *joined) as laptop:
            laptop.wait_known(cid)
            assert run_json("pin", "add", "mine", data_dir=laptop.data_dir)["cid"] == cid
            here = run_json("model", "info", "mine", data_dir=laptop.data_dir)
            assert (here["here"], here["pinned"]) == (True, True)

            async def life() -> list[dict]:
                async with AsyncClient(laptop.data_dir) as asynchronous:
                    await asynchronous.unpin_model("mine")
                    assert await asynchronous.pins() == []
                    await asynchronous.pin_model("mine")
                    return await asynchronous.pins()

            assert [each["cid"] for each in asyncio.run(life())] == [cid]

"""A model moves between real nodes: from three at once, past one that dies, and on from where a kill left it."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import NodeProcess
from ipfs_accel_node import AccelError, Client
from ipfs_accel_node.node.content.importer import import_folder

MIB = 1 << 20
SIZE = 160 * MIB


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "echo"}')
    (folder / "weights").write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture
def holders(tmp_path, model):
    """Three linked nodes that all hold the model."""
    with ExitStack() as running:
        nodes: list[NodeProcess] = []
        for place in range(3):
            join = ("--join", nodes[0].wait_ready()["token"]) if nodes else ()
            node = NodeProcess(f"holder-{place}", tmp_path / f"holder-{place}", "--backends", "none", *join)
            nodes.append(running.enter_context(node))
            node.wait_ready()
            with node.client() as client:
                cid = client.add_model(model, "big")["cid"]
        yield nodes, cid


def joining(tmp_path, holders) -> NodeProcess:
    return NodeProcess("new", tmp_path / "new", "--backends", "none", "--join", holders[0].wait_ready()["token"])


def ready_client(node: NodeProcess) -> Client:
    node.wait_ready()
    return node.client()


def wait_for_holders(node: NodeProcess, count: int) -> None:
    def look():
        with node.client() as client:
            return sum(bool(peer["models"]) and peer["linked"] for peer in client.peers()) == count or None

    node.wait_for(f"{count} linked holders", look, 30)


def test_three_peers_share_the_work(holders, tmp_path):
    nodes, cid = holders
    with joining(tmp_path, nodes) as new, ready_client(new) as client:
        wait_for_holders(new, 3)
        got = client.get_model(cid)
        assert got["name"] == "big"
        assert len(got["by_source"]) == 3
        assert min(got["by_source"].values()) > 0.15 * SIZE
        assert import_folder(Path(client.model_info(cid)["path"])).size == got["size"]
        assert client.get_model("big")["already"] is True


def test_a_peer_that_dies_costs_its_share_only(holders, tmp_path):
    nodes, cid = holders
    with joining(tmp_path, nodes) as new, ready_client(new) as client:
        wait_for_holders(new, 3)
        half = threading.Event()
        killer = threading.Thread(target=lambda: (half.wait(30), nodes[1].kill()))
        killer.start()
        got = client.get_model(cid, on_progress=lambda _state, done, *_: done > SIZE / 3 and half.set())
        killer.join()
        assert sum(got["by_source"].values()) >= SIZE
        assert client.model_info(cid)["here"] is True


def test_a_fetch_that_was_killed_half_way_goes_on_from_there(holders, tmp_path):
    nodes, cid = holders
    with joining(tmp_path, nodes) as new, ready_client(new) as client:
        wait_for_holders(new, 3)
        with pytest.raises(AccelError):
            client.get_model(cid, on_progress=lambda _state, done, *_: done > SIZE / 2 and new.kill())
    with NodeProcess("new", tmp_path / "new", "--backends", "none") as again:
        again.wait_ready()
        wait_for_holders(again, 3)
        with again.client() as client:
            assert client.model_info(cid)["here"] is False
            got = client.get_model(cid)
            assert sum(got["by_source"].values()) < SIZE / 2 + 16 * MIB
            assert client.model_info(cid)["here"] is True


def test_a_cid_that_nobody_has_is_told(holders):
    nodes, _ = holders
    with nodes[0].client() as client, pytest.raises(AccelError) as failed:
        client.get_model("bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq")
    assert failed.value.code == "content-not-found"

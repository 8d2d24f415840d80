"""Models between real nodes and a real Kubo, both ways: by CIDs of both versions, and nothing that may not leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node import AccelError
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.unixfs import HAMT, decode
from kubo_process import KuboFailedError, KuboProcess, why_not_here

MIB = 1 << 20

pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here() or "Kubo is here")


def make_model(folder: Path, size: int = 3 * MIB) -> Path:
    """Has files of no byte, of one block of any size, and of several."""
    make_echo_model(folder)
    (folder / "empty.txt").touch()
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.safetensors").write_bytes(os.urandom(size))
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def node(folder: Path, name: str, *arguments: str) -> NodeProcess:
    return NodeProcess(name, folder / name, "--backends", "none", *arguments)


@pytest.fixture
def kubo(tmp_path):
    with KuboProcess(tmp_path / "kubo") as process:
        yield process


def test_a_model_that_kubo_added_is_fetched_by_its_cid(kubo, tmp_path):
    """Of version 0, with leaves that are dag-pb."""
    model = make_model(tmp_path / "model")
    cid = kubo.add(model)
    assert cid.startswith("Qm")
    with node(tmp_path, "desk") as desk, desk.client() as client:
        got = client.get_model(cid, "from-kubo", ipfs_peers=kubo.addresses)
        assert got["by_source"].keys() == {kubo.peer_id}
        assert content_of(Path(client.model_info("from-kubo")["path"])) == content_of(model)
        assert client.status()["public"] is False
        desk.wait_for("Kubo to be left again", lambda: desk.peer_id not in kubo.peers(), 30)
        assert client.get_model(cid)["already"] is True
        assert "Traceback" not in desk.log_tail()


def test_a_folder_that_kubo_sharded_is_fetched(kubo, tmp_path):
    model = make_model(tmp_path / "model", 1000)
    for number in range(1000):
        (model / f"{number:0240}.txt").write_bytes(b"%d" % number)
    with node(tmp_path, "desk") as desk, desk.client() as client:
        cid = kubo.add(model)
        got = client.get_model(cid, "sharded", ipfs_peers=kubo.addresses)
        assert got["cid"] == cid
        assert content_of(Path(client.model_info("sharded")["path"])) == content_of(model)
        contents = next((desk.data_dir / "content" / "manifests").glob("*.contents")).read_bytes()
        found = Contents.unpack(contents)
        assert decode(found.nodes[found.root]).kind == HAMT


def test_kubo_fetches_a_model_and_another_node_has_it_from_there(kubo, tmp_path):
    """Of version 1, with blocks of 1 MiB; and what a model is made of comes back as it was."""
    model = make_model(tmp_path / "model")
    with node(tmp_path, "desk", "--public") as desk, desk.client() as client:
        cid = client.add_model(model, "mine")["cid"]
        kubo.connect(desk.ready["addresses"][0])
        kubo.get(cid, tmp_path / "copy")
        assert content_of(tmp_path / "copy") == content_of(model)
        told = run("status", data_dir=desk.data_dir).stdout
        assert "public: models that are not gated go to any IPFS peer · 1 IPFS peer now, 3" in told
    with node(tmp_path, "laptop", "--ipfs-peer", kubo.addresses[0]) as laptop:
        laptop.wait_ready()
        got = run_json("model", "get", cid, data_dir=laptop.data_dir)
        assert got["by_source"].keys() == {kubo.peer_id}
        with laptop.client() as client:
            assert content_of(Path(client.model_info(cid)["path"])) == content_of(model)


def test_kubo_fetches_one_model_after_another(kubo, tmp_path):
    """Over one connection, also what came to the node after it was connected with."""
    with node(tmp_path, "desk", "--public") as desk, desk.client() as client:
        desk.wait_ready()
        kubo.connect(desk.ready["addresses"][0])
        first = client.add_model(make_model(tmp_path / "first", 1000), "first")["cid"]
        kubo.get(first, tmp_path / "first-copy")
        second = client.add_model(make_model(tmp_path / "second"), "second")["cid"]
        kubo.get(second, tmp_path / "second-copy")
        assert content_of(tmp_path / "second-copy") == content_of(tmp_path / "second")


def test_a_gated_model_never_leaves_the_cluster(kubo, tmp_path):
    """Not even from a node that has it from another one; but a file that an open model has as well may go."""
    secret, open_one = make_model(tmp_path / "secret"), make_model(tmp_path / "open", 1000)
    (open_one / "shared.bin").write_bytes(b"known to all" * 1000)
    (secret / "shared.bin").write_bytes(b"known to all" * 1000)
    with node(tmp_path, "desk") as desk, desk.client() as client:
        cid = client.add_model(secret, "secret", gated=True)["cid"]
        token = desk.wait_ready()["token"]
        with node(tmp_path, "open-desk", "--public", "--join", token) as public, public.client() as at_public:
            public.wait_known(cid)
            at_public.get_model(cid)
            assert at_public.model_info(cid)["gated"] is True
            given = at_public.add_model(open_one, "open")["cid"]
            kubo.connect(public.wait_ready()["addresses"][0])
            kubo.get(given, tmp_path / "open-copy")
            assert content_of(tmp_path / "open-copy") == content_of(open_one)
            with pytest.raises(KuboFailedError):
                kubo.get(cid, tmp_path / "secret-copy", deadline_s=5)
            assert at_public.status()["ipfs"]["sent"] < MIB


def test_without_public_nothing_is_served(kubo, tmp_path):
    with node(tmp_path, "desk") as desk, desk.client() as client:
        cid = client.add_model(make_model(tmp_path / "model"), "mine")["cid"]
        kubo.connect(desk.wait_ready()["addresses"][0])
        with pytest.raises(KuboFailedError):
            kubo.get(cid, tmp_path / "copy", deadline_s=5)
        assert client.status()["ipfs"] == {"peers": 0, "sent": 0}


def test_what_a_peer_lacks_and_a_peer_that_is_not_there_are_told(kubo, tmp_path):
    with node(tmp_path, "desk") as desk, desk.client() as client:
        nothing = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
        with pytest.raises(AccelError) as lacking:
            client.get_model(nothing, ipfs_peers=kubo.addresses)
        assert (lacking.value.code, "it lacks 1 block" in lacking.value.message) == ("content-not-found", True)
        away = f"/ip4/127.0.0.1/tcp/1/p2p/{kubo.peer_id}"
        with pytest.raises(AccelError) as lost:
            client.get_model(nothing, ipfs_peers=[away])
        assert (lost.value.code, "cannot be reached" in lost.value.message) == ("content-not-found", True)
        refused = run("model", "get", nothing, "--from", "127.0.0.1", data_dir=desk.data_dir)
        assert (refused.returncode, "/p2p/" in refused.stderr) == (2, True)

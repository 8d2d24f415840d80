"""Nodes with an IPFS daemon or a gateway: models of nobody in the cluster, publishing, and what is told of it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture
def outside(tmp_path):
    """A daemon that has an echo model; its URL and the model's CID."""
    store = ModelStore(tmp_path / "elsewhere")
    kubo = FakeKubo()
    kubo.cid = store.add(make_echo_model(tmp_path / "there"), name="there").cid
    kubo.hold(store)
    with serving(kubo) as kubo.url:
        yield kubo


@pytest.mark.parametrize("flag", ["--kubo", "--gateway"])
def test_a_model_that_nobody_in_the_cluster_has_runs(tmp_path, outside, flag):
    node = NodeProcess("desk", tmp_path / "data", "--backends", "echo", flag, outside.url)
    with node, node.client() as client:
        got = client.get_model(outside.cid, "mine")
        assert got["already"] is False
        assert [name.endswith(outside.url) for name in got["by_source"]] == [True]
        assert client.submit("mine", "echo", ["hello"], timeout=30).result(30)["echo"] == ["hello"]


def test_the_cluster_comes_first(tmp_path, outside):
    with ExitStack() as stack:
        desk = stack.enter_context(NodeProcess("desk", tmp_path / "desk", "--backends", "echo"))
        with desk.client() as client:
            cid = client.add_model(make_echo_model(tmp_path / "model"), "mine")["cid"]
        joined = ("--backends", "none", "--join", desk.wait_ready()["token"], "--kubo", outside.url)
        laptop = stack.enter_context(NodeProcess("laptop", tmp_path / "laptop", *joined))
        laptop.wait_known(cid)
        with laptop.client() as client:
            assert set(client.get_model(cid)["by_source"]) == {desk.wait_ready()["peer_id"]}
        assert "/api/v0/block/get" not in outside.asked


def test_publishing_and_taking_back(tmp_path, outside):
    with NodeProcess("desk", tmp_path / "data", "--backends", "echo", "--kubo", outside.url) as node:
        node.wait_ready()
        data_dir = node.data_dir
        with node.client() as client:
            cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")["cid"]
            client.add_model(make_echo_model(tmp_path / "secret", work_ms=2), "closed", gated=True)
            with pytest.raises(AccelError) as refused:
                client.publish_model("closed")
            assert refused.value.code == "may-not-leave"
        assert not outside.pins
        foreign = run_json("model", "unpublish", "mine", data_dir=data_dir, status=2)
        assert foreign["error"]["code"] == "bad-input"
        published = run_json("model", "publish", "mine", data_dir=data_dir)
        assert (published["cid"], published["published"]) == (cid, True)
        assert outside.pins == {cid}
        run_json("model", "rm", "mine", data_dir=data_dir)
        assert outside.pins == {cid}, "a model that is removed here stays at the daemon"
        assert run_json("model", "get", cid, data_dir=data_dir)["cid"] == cid
        assert run_json("model", "unpublish", cid, data_dir=data_dir)["was_pinned"] is True
        assert not outside.pins


def test_what_is_added_is_published_by_itself_where_that_is_wished(tmp_path, outside):
    flags = ("--backends", "none", "--kubo", outside.url, "--kubo-publish")
    with NodeProcess("desk", tmp_path / "data", *flags) as node, node.client() as client:
        client.add_model(make_echo_model(tmp_path / "secret", work_ms=2), "closed", gated=True)
        cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")["cid"]
        node.wait_for("its pin", lambda: outside.pins, 30)
        assert outside.pins == {cid}


def test_status_and_doctor_tell_of_it(tmp_path, outside, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.toml").write_text(f'kubo = "{outside.url}"\nkubo_auth = "Bearer very-secret"\n')
    with NodeProcess("desk", tmp_path / "data", "--backends", "none") as node:
        node.wait_ready()
        assert run_json("status", data_dir=node.data_dir)["kubo"]["version"] == "0.39.0"
        assert "IPFS daemon 0.39.0" in run("status", data_dir=node.data_dir).stdout
        outside.authorization = "Bearer other"
        told = run_json("status", data_dir=node.data_dir)["kubo"]["error"]
        assert told["code"] == "kubo-refused"
        shown = run("doctor", "--json", data_dir=node.data_dir).stdout
        assert '"kubo-refused"' in shown
        assert "IPFS_ACCEL_KUBO_AUTH" in shown
        everything = shown + node.log_tail() + run("config", "show", data_dir=node.data_dir).stdout
        assert "very-secret" not in everything

"""Nodes with an IPFS daemon or a gateway: models of nobody in the cluster, publishing, and what is told of it.

The tests that take `daemon` run unchanged against the fake and, where there is an `ipfs` program, a real one.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
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


def test_a_model_of_the_daemon_runs(tmp_path, daemon):
    store = ModelStore(tmp_path / "elsewhere")
    model = store.add(make_echo_model(tmp_path / "there"), name="there")
    trio.run(daemon.take, store, model.cid_bytes)
    node = NodeProcess("desk", tmp_path / "data", "--backends", "echo", "--kubo", daemon.address)
    with node, node.client() as client:
        assert client.kubo()["error"] is None
        got = client.get_model(model.cid, "mine")
        assert got["already"] is False
        assert [name.startswith("kubo ") for name in got["by_source"]] == [True]
        assert client.submit("mine", "echo", ["hello"], timeout=30).result(30)["echo"] == ["hello"]


def test_a_model_of_a_gateway_runs(tmp_path, outside):
    node = NodeProcess("desk", tmp_path / "data", "--backends", "echo", "--gateway", outside.url)
    with node, node.client() as client:
        got = client.get_model(outside.cid, "mine")
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


def test_publishing_and_taking_back(tmp_path, daemon):
    with NodeProcess("desk", tmp_path / "data", "--backends", "echo", "--kubo", daemon.address) as node:
        node.wait_ready()
        data_dir = node.data_dir
        with node.client() as client:
            cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")["cid"]
            client.add_model(make_echo_model(tmp_path / "secret", work_ms=2), "closed", gated=True)
            with pytest.raises(AccelError) as refused:
                client.publish_model("closed")
            assert refused.value.code == "may-not-leave"
        before = daemon.pins
        foreign = run_json("model", "unpublish", "mine", data_dir=data_dir, status=2)
        assert foreign["error"]["code"] == "bad-input"
        published = run_json("model", "publish", "mine", data_dir=data_dir)
        assert (published["cid"], published["published"]) == (cid, True)
        assert (published["provided"], published["provide_error"]["code"]) == (False, "kubo-failed"), "it knows nobody"
        assert daemon.pins == before | {cid}
        run_json("model", "rm", "mine", data_dir=data_dir)
        assert daemon.pins == before | {cid}, "a model that is removed here stays at the daemon"
        assert run_json("model", "get", cid, data_dir=data_dir)["cid"] == cid
        assert run_json("model", "unpublish", cid, data_dir=data_dir)["was_pinned"] is True
        assert daemon.pins == before


def test_publishing_as_files(tmp_path, daemon):
    with NodeProcess("desk", tmp_path / "data", "--backends", "none", "--kubo", daemon.address) as node:
        node.wait_ready()
        with node.client() as client:
            cid = client.add_model(make_echo_model(tmp_path / "model"), "mine")["cid"]
        published = run_json("model", "publish", "mine", "--as-files", data_dir=node.data_dir)
        assert (published["cid"], published["published"]) == (cid, True)
        assert cid in daemon.pins


def test_a_daemon_without_dag_import_is_told_of_and_takes_files(tmp_path, outside):
    outside.lacking = {"dag/import"}
    outside.provided = []
    with NodeProcess("desk", tmp_path / "data", "--backends", "none", "--kubo", outside.url) as node:
        with node.client() as client:
            client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")
            with pytest.raises(AccelError) as failed:
                client.publish_model("mine")
            assert (failed.value.code, "--as-files" in failed.value.hint) == ("kubo-failed", True)
            published = client.publish_model("mine", as_files=True)
            assert (published["provided"], published["provide_error"]) == (True, None)
            outside.provided = [{"Type": 3, "ID": "", "Extra": "the DHT is empty", "Responses": None}]
        told = run("model", "publish", "mine", "--as-files", data_dir=node.data_dir)
        assert (told.returncode, "the DHT is empty" in told.stdout) == (0, True)


def test_what_is_added_is_published_by_itself_where_that_is_wished(tmp_path, daemon):
    flags = ("--backends", "none", "--kubo", daemon.address, "--kubo-publish")
    before = daemon.pins
    with NodeProcess("desk", tmp_path / "data", *flags) as node, node.client() as client:
        client.add_model(make_echo_model(tmp_path / "secret", work_ms=2), "closed", gated=True)
        cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")["cid"]
        node.wait_for("its pin", lambda: daemon.pins - before, 30)
        assert daemon.pins == before | {cid}


def test_who_has_a_model(tmp_path, outside):
    address = "/ip4/1.2.3.4/udp/4001/quic-v1"
    outside.providers = [{"Type": 4, "ID": "", "Extra": "", "Responses": [{"ID": "12D3KooWfar", "Addrs": [address]}]}]
    with ExitStack() as stack:
        desk = stack.enter_context(NodeProcess("desk", tmp_path / "desk", "--backends", "none"))
        with desk.client() as client:
            cid = client.add_model(make_echo_model(tmp_path / "model", work_ms=1), "mine")["cid"]
            secret = client.add_model(make_echo_model(tmp_path / "secret", work_ms=2), "closed", gated=True)["cid"]
            assert client.providers("mine")["ipfs"] is None, "it has no daemon"
        joined = ("--backends", "none", "--join", desk.wait_ready()["token"], "--kubo", outside.url)
        laptop = stack.enter_context(NodeProcess("laptop", tmp_path / "laptop", *joined))
        laptop.wait_known(cid)
        laptop.wait_known(secret)
        told = run_json("model", "providers", "mine", data_dir=laptop.data_dir)
        assert (told["cid"], told["gated"]) == (cid, False)
        assert [(node["node_name"], node["here"]) for node in told["nodes"]] == [("desk", False)]
        assert told["ipfs"]["peers"] == [{"peer_id": "12D3KooWfar", "addresses": [address]}]
        shown = run("model", "providers", "mine", data_dir=laptop.data_dir).stdout
        assert all(each in shown for each in ("desk", "12D3KooWfar", address, "1 peer of IPFS"))
        asked = outside.asked.count("/api/v0/routing/findprovs")
        closed = run_json("model", "providers", "closed", data_dir=laptop.data_dir)
        assert (closed["gated"], closed["ipfs"], len(closed["nodes"])) == (True, None, 1)
        with desk.client() as client:
            assert client.providers("closed")["gated"] is True
        assert outside.asked.count("/api/v0/routing/findprovs") == asked
        outside.authorization = "Bearer other"
        refused = run_json("model", "providers", outside.cid, data_dir=laptop.data_dir)
        assert (refused["nodes"], refused["ipfs"]["error"]["code"]) == ([], "kubo-refused")


def test_a_daemon_is_led_to_the_peers_that_are_named(tmp_path, outside):
    named = "/ip4/127.0.0.1/udp/1/quic-v1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
    with NodeProcess("desk", tmp_path / "data", "--backends", "none", "--kubo", outside.url) as node:
        node.wait_ready()
        got = run_json("model", "get", outside.cid, "--from", named, data_dir=node.data_dir)
    assert [name.endswith(outside.url) for name in got["by_source"]] == [True]
    assert outside.connected == [named]


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

"""Pins of a cluster over real nodes: enough hold a model, another takes over, and who was away catches up."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from cluster import NodeProcess, make_echo_model, run_json
from cluster import run_program as run
from ipfs_accel_node import AccelError, AsyncClient

GRACE = ("--pin-grace", "6")
WAIT_S = 60


class Cluster:
    """Nodes that join the first one; each may be stopped, killed and started again."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.nodes: dict[str, NodeProcess] = {}
        self.token = ""

    def start(self, name: str, *options: str) -> NodeProcess:
        join = ("--join", self.token) if self.token and not (self._folder / name).exists() else ()
        node = NodeProcess(name, self._folder / name, "--backends", "none", *GRACE, *join, *options)
        self.nodes[name] = self._stack.enter_context(node)
        self.token = node.wait_ready()["token"]
        return node

    def end(self, name: str) -> None:
        self.nodes.pop(name).kill()

    def pin(self, at: str, cid: str) -> dict | None:
        with self.nodes[at].client() as client:
            return next((each["cluster"] for each in client.pins() if each["cid"] == cid), None)

    def wait(self, at: str, what: str, condition) -> None:
        self.nodes[at].wait_for(what, lambda: condition() or None, WAIT_S)

    def holders(self, at: str, cid: str) -> set[str]:
        """As the node `at` sees it."""
        return {each["node_name"] for each in (self.pin(at, cid) or {"holders": ()})["holders"]}

    def here(self, name: str, cid: str) -> bool:
        with self.nodes[name].client() as client:
            return any(model["cid"] == cid and model["here"] for model in client.models())


@pytest.fixture
def cluster(tmp_path):
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


@pytest.fixture
def model(tmp_path):
    folder = make_echo_model(tmp_path / "model")
    (folder / "weights.txt").write_bytes(bytes(range(256)) * 4096)
    return folder


def test_the_life_of_a_pin(cluster, model):
    for name in ("one", "two", "three"):
        cluster.start(name)
    with cluster.nodes["one"].client() as client:
        cid = client.add_model(model, "mine")["cid"]
    cluster.nodes["two"].wait_known(cid)

    made = run_json("pin", "add", "mine", "--cluster", "--replicas", "2:2", data_dir=cluster.nodes["two"].data_dir)
    assert made["cluster"]["replicas"] == [2, 2]
    for name in cluster.nodes:
        cluster.wait(name, "two holders", lambda name=name: len(cluster.holders(name, cid)) == 2)
    holders = cluster.holders("three", cid)
    assert "one" in holders, "who has it stays"
    assert {each["node_name"] for each in cluster.pin("one", cid)["wanted"]} == holders
    shown = run("pin", "ls", data_dir=cluster.nodes["three"].data_dir).stdout
    assert "2 nodes" in shown
    assert all(name in shown for name in holders)
    refused = run_json("model", "rm", "mine", data_dir=cluster.nodes["one"].data_dir, status=1)["error"]
    assert refused["code"] == "model-pinned"
    assert "--cluster" in refused["hint"]

    (second,) = holders - {"one"}
    (third,) = set(cluster.nodes) - holders
    cluster.end(second)
    cluster.wait("one", "another holder", lambda: cluster.here(third, cid))
    cluster.wait("one", "its word", lambda: cluster.holders("one", cid) == {"one", third})

    with cluster.nodes["one"].client() as client:
        assert client.unpin_model("mine", cluster=True)["cluster"] is None
    cluster.wait(third, "the end of the pin", lambda: cluster.pin(third, cid) is None)
    cluster.start(second)
    cluster.wait(second, "what it missed", lambda: cluster.pin(second, cid) is None)
    for node in cluster.nodes.values():
        node.wait_for("a model that may go", lambda node=node: may_go(node, cid) or None, WAIT_S)
    assert run_json("model", "rm", "mine", data_dir=cluster.nodes["one"].data_dir)["cid"] == cid


def may_go(node: NodeProcess, cid: str) -> bool:
    planned = run_json("repo", "gc", "--unpinned", "--dry-run", data_dir=node.data_dir)["models"]
    with node.client() as client:
        here = any(each["cid"] == cid and each["here"] for each in client.models())
    return not here or cid in {each["cid"] for each in planned}


async def test_a_node_that_comes_later_holds_what_all_hold(cluster, model):
    one = cluster.start("one")
    async with AsyncClient(one.data_dir) as client:
        cid = (await client.add_model(model, "mine"))["cid"]
        made = await client.pin_model("mine", cluster=True)
        assert made["cluster"]["replicas"] == [1, None]
        assert [each["cid"] for each in await client.pins()] == [cid]
    cluster.end("one")
    cluster.start("one")
    cluster.start("later")
    cluster.wait("later", "the model", lambda: cluster.here("later", cid))
    cluster.wait("one", "its word", lambda: cluster.holders("one", cid) == {"one", "later"})
    with cluster.nodes["later"].client() as client:
        assert [each["pinned"] for each in client.pins()] == [False], "the cluster's, and not its own"
        client.pin_model("mine")
        client.unpin_model("mine", cluster=True)
        assert [(each["pinned"], each["cluster"]) for each in client.pins()] == [(True, None)]


def test_what_cannot_be_pinned_is_told(cluster, model):
    one = cluster.start("one")
    with one.client() as client:
        client.add_model(model, "mine")
        for replicas in ((0, 1), (3, 2), (1, 5000)):
            with pytest.raises(AccelError) as refused:
                client.pin_model("mine", cluster=True, replicas=replicas)
            assert refused.value.code == "bad-input"
        with pytest.raises(AccelError) as refused:
            client.pin_model("bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq", cluster=True)
        assert refused.value.code == "unknown-model"
        with pytest.raises(AccelError) as refused:
            client.unpin_model("mine", cluster=True)
        assert refused.value.code == "unknown-model"
    for arguments, code in (
        (("--cluster", "--replicas", "many"), "bad-input"),
        (("--replicas", "2"), "bad-input"),
        (("--cluster", "--replicas", "5:2"), "bad-input"),
    ):
        done = run("pin", "add", "mine", *arguments, "--json", data_dir=one.data_dir)
        assert (done.returncode, f'"{code}"' in done.stdout) == (2, True), done.stdout
    cluster.end("one")
    alone = run_json("pin", "add", "mine", "--cluster", data_dir=one.data_dir, status=1)
    assert alone["error"]["code"] == "not-running"

"""What tests of real nodes share: watching that a node serves on, and that nothing of an attack stays with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from cluster import NodeProcess, make_echo_model
from striking import wait_until

#: What a node may hold more than before while somebody does their worst, and what may stay of it, in bytes.
MOST_MORE = 192 << 20
MOST_LEFT = 96 << 20


class Watch:
    """Looks at a node process from outside while something is done to it: memory at its highest, and what is left."""

    def __init__(self, node: NodeProcess, *, others: Callable[[], None] | None = None, most: int = MOST_MORE) -> None:
        self._most = most
        self._node = node
        self._others = others
        self._process = psutil.Process(node.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self.before = self._resources()
        self.memory = self.highest = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None:
            self._check()

    def serves(self, seconds: float = 5.0) -> None:
        """A client is answered, also now."""
        with self._node.client() as client:
            assert client.status(timeout=seconds)["state"] == "ready"

    def _check(self) -> None:
        self.serves()
        if self._others is not None:
            self._others()
        descriptors, children = self.before
        wait_until(lambda: self._resources()[0] <= descriptors + 2, what=f"{descriptors} descriptors as before")
        assert self._resources()[1] == children
        mib = 1 << 20
        left = self._process.memory_info().rss - self.memory
        assert self.highest - self.memory < self._most, f"{(self.highest - self.memory) / mib:.0f} MiB more at once"
        assert left < MOST_LEFT, f"{left / mib:.0f} MiB stay"
        assert "Traceback" not in self._node.log_tail()

    def _resources(self) -> tuple[int, int]:
        return self._process.num_fds(), len(self._process.children(recursive=True))

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.highest = max(self.highest, self._process.memory_info().rss)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A node that runs echo jobs, and the CID of its model as `victim.cid`."""
    folder = tmp_path_factory.mktemp("victim")
    with NodeProcess("victim", folder / "data", "--backends", "echo") as node:
        with node.client() as client:
            node.cid = client.add_model(make_echo_model(folder / "model"), "echo-model")["cid"]
        node.wait_for("its offer", lambda: offers(node, node.cid), 20)
        yield node


@pytest.fixture(scope="module")
def friend(victim, tmp_path_factory):
    """A node of the same cluster that stays linked with the victim; `friend.uses_victim()` runs a job there."""
    data = tmp_path_factory.mktemp("friend")
    with NodeProcess("friend", data, "--backends", "none", "--join", victim.ready["token"]) as node:
        node.wait_for("news of the model", lambda: offers(node, victim.cid), 20)

        def uses_victim() -> None:
            with node.client() as client:
                job = client.submit(victim.cid, "echo", ["hello"], timeout=20)
                assert job.result(20)["echo"] == ["hello"]
                assert job.report["node_name"] == "victim"

        node.uses_victim = uses_victim
        yield node


def offers(node: NodeProcess, cid: str) -> list[Any]:
    with node.client() as client:
        return [offer for model in client.models() if model["cid"] == cid for offer in model["nodes"]]


@pytest.fixture
def make_watch():
    return Watch


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

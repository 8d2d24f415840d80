"""A node is killed again and again at random moments while its store changes: no half model, and nothing lost."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import AccelError, Client
from ipfs_accel_node.node.catalogue import open_store
from ipfs_accel_node.node.config import Paths
from striking import wait_until

MIB = 1 << 20
KILLS = int(os.environ.get("STORE_KILLS", "300"))


class Changes:
    """Changes the store of a node in a thread until the node dies, and knows what has to be there afterwards."""

    def __init__(self, seed: int, folders: dict[str, Path], cids: dict[str, str]) -> None:
        self._choices = random.Random(seed)
        self._folders = folders
        self._cids = cids
        #: Models that were pinned, and that nobody has begun to let go since.
        self.kept: set[str] = set()
        self.done = 0

    def run(self, client: Client) -> None:
        changes = (self._add, self._fetch, self._pin, self._unpin, self._remove, self._collect, self._verify)
        while True:
            name = self._choices.choice(list(self._cids))
            try:
                self._choices.choice(changes)(client, name)
            except AccelError as error:
                if error.code in ("not-running", "connection-lost", "node-stopped"):
                    return
            self.done += 1

    def _add(self, client: Client, name: str) -> None:
        if name in self._folders:
            client.add_model(self._folders[name], name)

    def _fetch(self, client: Client, name: str) -> None:
        client.get_model(self._cids[name])

    def _pin(self, client: Client, name: str) -> None:
        client.pin_model(self._cids[name])
        self.kept.add(self._cids[name])

    def _unpin(self, client: Client, name: str) -> None:
        if self._choices.random() < 0.5:
            self.kept.discard(self._cids[name])
            client.unpin_model(self._cids[name])

    def _remove(self, client: Client, name: str) -> None:
        client.remove_model(self._cids[name])

    def _collect(self, client: Client, _name: str) -> None:
        client.repo_gc(unpinned=True)

    def _verify(self, client: Client, name: str) -> None:
        assert client.repo_verify(self._cids[name], repair=True)[0]["damaged"] == []


def kill_at_random(tmp_path: Path, times: int) -> None:
    folders = {}
    for name, size in {"small": 1, "middle": 5, "large": 20}.items():
        folders[name] = make_echo_model(tmp_path / name)
        (folders[name] / "weights.txt").write_bytes(os.urandom(size * MIB))
    with NodeProcess("holder", tmp_path / "holder", "--backends", "none") as holder, holder.client() as client:
        cids = {name: client.add_model(folder, name)["cid"] for name, folder in folders.items()}
        token, data = holder.wait_ready()["token"], tmp_path / "victim"
        changes, moments = Changes(0, {"small": folders["small"], "middle": folders["middle"]}, cids), random.Random(1)
        for _ in range(times):
            one_life(data, token, changes, moments.uniform(0.0, 1.0))
            look(data, changes.kept)
        assert changes.done >= times, "the store did change"


def one_life(data: Path, token: str, changes: Changes, seconds: float) -> None:
    with NodeProcess("victim", data, "--backends", "none", "--join", token) as victim:
        victim.wait_ready()
        with victim.client() as client:
            worker = threading.Thread(target=changes.run, args=(client,))
            wait_until(lambda: any(peer["linked"] for peer in client.peers()), what="the holder")
            worker.start()
            time.sleep(seconds)
            victim.kill()
            worker.join(30)
            assert not worker.is_alive(), "a caller of a node that died is told so"


def look(data: Path, kept: set[str]) -> None:
    store = open_store(Paths(data))
    models = {model.cid: model for model in store.models()}
    assert kept <= {cid for cid, model in models.items() if model.pinned}
    for model in models.values():
        assert store.verify(model.cid_bytes) == [], "half a model"
    with suppress(FileNotFoundError):
        assert list((data / "content" / "adding").iterdir()) == []


def test_a_node_that_is_killed_some_times_keeps_its_store(tmp_path):
    kill_at_random(tmp_path, 8)


@pytest.mark.soak
def test_a_node_that_is_killed_hundreds_of_times_keeps_its_store(tmp_path):
    kill_at_random(tmp_path, KILLS)

"""The store: whole or absent, never twice on disk, never serving what is damaged."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import pytest
from ipfs_accel_node.node.content.cid import parse_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore, StoreLock
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    rng = random.Random(1)
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(rng.randbytes(3 * MIB + 5))
    (folder / "sub" / "empty").write_bytes(b"")
    return folder


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "content")


def test_adding_keeps_plain_files_and_every_block_can_be_read(store, model):
    progress = []
    stored = store.add(model, name="mine", progress=lambda *each: progress.append(each))
    imported = import_folder(model)
    assert parse_cid(stored.cid) == imported.root == stored.cid_bytes
    assert (stored.path / "weights").read_bytes() == (model / "weights").read_bytes()
    assert progress[-1] == ("adding", imported.size, imported.size)
    for file in imported.files:
        content = (model / file.path).read_bytes()
        assert b"".join(store.read_block(leaf) for leaf in file.leaves) == content
    assert {cid: store.read_block(cid) for cid in imported.nodes} == imported.nodes
    assert store.read_block(b"\x01\x55\x12\x20" + bytes(32)) is None


def test_a_store_opens_again_as_it_was(store, model, tmp_path):
    stored = store.add(model, name="mine")
    again = ModelStore(tmp_path / "content")
    assert again.models() == [stored]
    assert again.read_block(stored.cid_bytes) == store.read_block(stored.cid_bytes)


def test_adding_again_changes_the_name_that_is_given_and_nothing_else(store, model):
    first = store.add(model, name="mine")
    assert store.add(model).name == "mine"
    second = store.add(model, name="other")
    assert (second.cid, second.name, second.added_at) == (first.cid, "other", first.added_at)
    assert len(store.models()) == 1


def test_removing_frees_the_space_and_what_is_shared_stays(store, model, tmp_path):
    first = store.add(model)
    (model / "more").write_bytes(b"more")
    second = store.add(model)
    store.remove(first.cid_bytes)
    assert not first.path.exists()
    assert store.models() == [second]
    assert store.read_block(first.cid_bytes) is None
    for file in import_folder(model).files:
        assert all(store.read_block(leaf) is not None for leaf in file.leaves)
    assert ModelStore(tmp_path / "content").models() == [second]


def test_a_damaged_file_is_not_served(store, model, caplog):
    stored = store.add(model)
    with (stored.path / "weights").open("r+b") as file:
        file.seek(MIB + 3)
        file.write(b"!")
    leaves = next(file.leaves for file in import_folder(model).files if file.path == "weights")
    assert [store.read_block(leaf) is None for leaf in leaves] == [False, True, False, False]
    assert "damaged" in caplog.text


def test_names(store, model):
    stored = store.add(model, name="mine")
    assert store.resolve("mine") == store.resolve(stored.cid) == store.resolve(stored.cid[:12]) == stored
    with pytest.raises(AccelError, match="Known here: mine") as unknown:
        store.resolve("mime")
    assert unknown.value.code == "unknown-model"
    (model / "more").write_bytes(b"more")
    other = store.add(model, name="mine")
    with pytest.raises(AccelError) as ambiguous:
        store.resolve("mine")
    assert ambiguous.value.code == "ambiguous-model"
    assert stored.cid in ambiguous.value.message
    assert other.cid in ambiguous.value.message


def test_no_room_is_told_before_anything_is_written(store, model, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.content.store.SPARE", 1 << 60)
    with pytest.raises(AccelError, match="disk-full"):
        store.add(model)
    assert store.models() == []


def test_one_process_at_a_time(tmp_path):
    with StoreLock(tmp_path), pytest.raises(AccelError, match="already-running"), StoreLock(tmp_path):
        pass
    with StoreLock(tmp_path):
        assert (tmp_path / "lock").exists()


ADDING = """
import sys
from pathlib import Path
from ipfs_accel_node.node.content.store import ModelStore
store = ModelStore(Path(sys.argv[1]))
print("begun", flush=True)
while True:
    store.add(Path(sys.argv[2]), name="x")
    print("added", flush=True)
    store.remove(store.models()[0].cid_bytes)
"""


def test_killed_at_any_moment_it_opens_again_with_a_whole_model_or_none(model, tmp_path):
    rng = random.Random(7)
    for _ in range(12):
        command = [sys.executable, "-c", ADDING, str(tmp_path / "content"), str(model)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as adding:
            assert adding.stdout.readline() == b"begun\n"
            time.sleep(rng.uniform(0, 0.08))
            adding.send_signal(signal.SIGKILL)
        store = ModelStore(tmp_path / "content")
        for stored in store.models():
            assert import_folder(stored.path).root == stored.cid_bytes
        kept = {stored.path for stored in store.models()}
        assert set((tmp_path / "content" / "models").iterdir()) == kept
        assert not (tmp_path / "content" / "adding").exists()

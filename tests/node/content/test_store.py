"""The store: plain folders, never twice on disk, never serving what is damaged."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest
from ipfs_accel_node.node.content import copying, disk
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, cid_of, make_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore, StoreLock
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub" / "void").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights").write_bytes(random.Random(1).randbytes(3 * MIB + 5))
    (folder / "sub" / "empty").write_bytes(b"")
    return folder


def leaves_of(folder, path):
    (file,) = (file for file in import_folder(folder).files if file.path == path)
    return [cid_of(RAW, digest) for digest in file.split()]


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_adding_keeps_plain_files_and_every_block_can_be_read(store, model):
    told = []
    stored = store.add(model, name="mine", progress=lambda *each: told.append(each))
    imported = import_folder(model)
    assert stored.cid_bytes == imported.root
    assert files_in(stored.path) == files_in(model)
    assert (stored.path / "sub" / "void").is_dir()
    assert (stored.path / "weights").read_bytes() == (model / "weights").read_bytes()
    assert [told[0][0], told[-1]] == ["adding", ("storing", imported.size, imported.size)]
    for file in imported.files:
        blocks = [store.read_block(cid_of(RAW, digest)) for digest in file.split()]
        assert b"".join(blocks) == (model / file.path).read_bytes()
    assert {cid: store.read_block(cid) for cid in imported.nodes} == imported.nodes


def test_blocks_that_are_not_here_or_cannot_be(store, model):
    stored = store.add(model)
    assert store.read_block(make_cid(RAW, b"elsewhere")) is None
    assert store.read_block(make_cid(DAG_PB, b"elsewhere")) is None
    assert store.read_block(b"no cid") is None
    assert store.read_block(b"\x01\x55\x00\x03abc") == b"abc"
    assert store.read_block(stored.cid_bytes[2:]) == store.read_block(stored.cid_bytes), "version 0 names it too"


def test_nothing_is_on_disk_twice(store, model, tmp_path):
    stored = store.add(model)
    beside = sum(p.stat().st_size for p in (tmp_path / "content").rglob("*") if p.is_file()) - stored.size
    assert beside < 4096


def test_a_store_opens_again_as_it_was(store, model, tmp_path):
    stored = store.add(model, name="mine")
    again = ModelStore(tmp_path / "content")
    assert again.models() == [stored]
    assert again.read_block(stored.cid_bytes) == store.read_block(stored.cid_bytes)
    assert again.get(stored.cid_bytes) == stored


def test_adding_again_changes_the_name_that_is_given_and_nothing_else(store, model):
    first = store.add(model, name="mine")
    inode = (first.path / "weights").stat().st_ino
    assert store.add(model).name == "mine"
    second = store.add(model, name="other")
    assert (second.cid, second.name, second.added_at) == (first.cid, "other", first.added_at)
    assert (second.path / "weights").stat().st_ino == inode
    assert len(store.models()) == 1


def test_renaming(store, model, tmp_path):
    stored = store.add(model, name="mine")
    assert store.rename(stored.cid_bytes, "other").name == "other"
    assert ModelStore(tmp_path / "content").resolve("other").cid == stored.cid
    assert store.rename(stored.cid_bytes, "").name == ""
    with pytest.raises(AccelError, match="not in this store"):
        store.rename(make_cid(DAG_PB, b"x"), "other")


def test_a_pinned_model_stays_whatever_else_changes(store, model, tmp_path, monkeypatch):
    stored = store.add(model, name="first")
    assert not stored.pinned
    cid = stored.cid_bytes
    assert store.pin(cid, pinned=True).pinned
    store.rename(cid, "second")
    store.add(model, name="third")
    later = time.time() + 3600
    monkeypatch.setattr("ipfs_accel_node.node.content.store.time.time", lambda: later)
    store.touch(cid)
    assert ModelStore(tmp_path / "content").get(cid) == store.get(cid)
    assert (store.get(cid).pinned, store.get(cid).last_used) == (True, later)
    with pytest.raises(AccelError) as refused:
        store.remove(cid)
    assert refused.value.code == "model-pinned"
    assert stored.path.is_dir()
    store.pin(cid, pinned=False)
    store.remove(cid)
    with pytest.raises(AccelError) as unknown:
        store.pin(cid, pinned=True)
    assert unknown.value.code == "unknown-model"


@pytest.mark.parametrize("name", [" spaced ", "new\nline", "x" * 129, "\x1b[2J", "@cid"])
def test_names_that_cannot_be(store, model, name):
    name = stored.cid if (stored := store.add(model)) and name == "@cid" else name
    for give in (lambda: store.add(model, name=name), lambda: store.rename(stored.cid_bytes, name)):
        with pytest.raises(AccelError, match="cannot be a model's name") as refused:
            give()
        assert refused.value.code == "bad-input"


def test_removing_frees_the_space_and_what_is_shared_stays(store, model, tmp_path):
    first = store.add(model)
    (model / "more").write_bytes(b"more")
    second = store.add(model)
    store.remove(first.cid_bytes)
    assert not first.path.exists()
    assert store.models() == [second]
    assert store.read_block(first.cid_bytes) is None
    assert all(store.read_block(leaf) is not None for leaf in leaves_of(model, "weights"))
    assert ModelStore(tmp_path / "content").models() == [second]
    store.remove(second.cid_bytes)
    assert files_in(tmp_path / "content") == []
    with pytest.raises(AccelError, match="not in this store") as unknown:
        store.remove(second.cid_bytes)
    assert unknown.value.code == "unknown-model"


def test_a_damaged_file_is_not_served_and_adding_again_mends_it(store, model, caplog):
    stored = store.add(model)
    with (stored.path / "weights").open("r+b") as file:
        file.seek(MIB + 3)
        file.write(b"!")
    leaves = leaves_of(model, "weights")
    for _ in range(3):
        assert [store.read_block(leaf) is None for leaf in leaves] == [False, True, False, False]
    assert caplog.text.count("is damaged at byte 1048576") == 1
    assert store.verify(stored.cid_bytes) == ["weights"]
    assert store.add(model).cid == stored.cid
    assert store.verify(stored.cid_bytes) == []
    assert all(store.read_block(leaf) is not None for leaf in leaves)


def test_a_damaged_file_is_served_from_another_model_that_has_it(store, model):
    first = store.add(model)
    (model / "more").write_bytes(b"more")
    store.add(model)
    (first.path / "weights").write_bytes(b"short")
    assert all(store.read_block(leaf) is not None for leaf in leaves_of(model, "weights"))


@pytest.mark.parametrize("lost", ["weights", "sub/empty", "config.json"])
def test_a_model_that_lost_a_file_is_put_back_to_be_fetched(store, model, tmp_path, lost, caplog):
    stored = store.add(model, name="mine")
    (stored.path / lost).unlink()
    again = ModelStore(tmp_path / "content")
    assert again.models() == []
    assert "model get" in caplog.text
    kept = set(files_in(again.partial(stored.cid_bytes)))
    assert kept == set(files_in(model)) - {lost}
    assert again.add(model).cid == stored.cid


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "older"])
def test_a_damaged_list_of_blocks_is_made_again_from_the_files(store, model, tmp_path, damage):
    stored = store.add(model, name="mine")
    path = tmp_path / "content" / "manifests" / f"{stored.cid}.contents"
    whole = path.read_bytes()
    bad = bytearray(whole)
    bad[len(bad) // 2] ^= 1
    path.write_bytes({"flip": bytes(bad), "cut": whole[:-9], "gone": b"", "older": b"\x91\x01"}[damage])
    again = ModelStore(tmp_path / "content")
    assert again.models() == [stored]
    assert path.read_bytes() == whole
    assert again.read_block(stored.cid_bytes) is not None


def test_a_damaged_label_costs_the_name_only(store, model, tmp_path):
    stored = store.add(model, name="mine")
    (tmp_path / "content" / "manifests" / f"{stored.cid}.json").write_text("{")
    (again,) = ModelStore(tmp_path / "content").models()
    assert (again.cid, again.name) == (stored.cid, "")


def test_what_was_left_half_done_is_cleared_away(store, model, tmp_path):
    stored = store.add(model)
    root = tmp_path / "content"
    other = import_folder(model / "sub").root
    (root / "adding" / "half").mkdir(parents=True)
    (root / "adding" / "half" / "weights").write_bytes(b"half")
    (root / "manifests" / "stray.tmp").write_bytes(b"half")
    (root / "manifests" / f"{disk.__name__}.json").write_bytes(b"{}")
    fresh, old = store.partial(stored.cid_bytes), store.partial(other)
    os.utime(old, (0, 0))
    again = ModelStore(root)
    assert again.models() == [stored]
    assert list((root / "adding").iterdir()) == []
    assert len(list((root / "manifests").iterdir())) == 2
    assert (fresh.exists(), old.exists()) == (True, False)


def test_names_and_prefixes_are_resolved(store, model):
    stored = store.add(model, name="mine")
    assert store.resolve("mine") == store.resolve(stored.cid) == store.resolve(stored.cid[:12]) == stored
    with pytest.raises(AccelError, match="Known here: mine") as unknown:
        store.resolve("mime")
    assert unknown.value.code == "unknown-model"
    with pytest.raises(AccelError, match="unknown-model"):
        store.resolve(stored.cid[:7])
    (model / "more").write_bytes(b"more")
    other = store.add(model, name="mine")
    with pytest.raises(AccelError) as ambiguous:
        store.resolve("mine")
    assert ambiguous.value.code == "ambiguous-model"
    assert stored.cid in ambiguous.value.message
    assert other.cid in ambiguous.value.message


def test_use_is_noted_about_once_a_minute(store, model, tmp_path, monkeypatch):
    stored = store.add(model, name="mine")
    store.touch(stored.cid_bytes)
    assert store.models() == [stored]
    monkeypatch.setattr("time.time", lambda: stored.last_used + 61)
    store.touch(stored.cid_bytes)
    store.touch(make_cid(DAG_PB, b"unknown"))
    (again,) = ModelStore(tmp_path / "content").models()
    assert (again.last_used, again.name) == (stored.last_used + 61, "mine")


def test_no_room_is_told_before_anything_is_written(store, model, monkeypatch, tmp_path):
    monkeypatch.setattr("ipfs_accel_node.node.content.collection.SPARE", 1 << 60)
    with pytest.raises(AccelError, match="4 MiB do not fit: 4 MiB are lacking") as refused:
        store.add(model)
    assert refused.value.code == "disk-full"
    assert files_in(tmp_path / "content") == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EACCES, "permission-denied")])
def test_a_failure_of_the_disk_leaves_nothing(store, model, monkeypatch, tmp_path, number, code):
    def failing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(copying, "_write_all", failing)
    with pytest.raises(AccelError) as refused:
        store.add(model)
    assert refused.value.code == code
    assert refused.value.hint
    assert files_in(tmp_path / "content") == []
    assert list((tmp_path / "content" / "adding").iterdir()) == []


def test_an_addition_can_be_stopped(store, model, tmp_path):
    def stop(state, done, total):
        if done > MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(model, progress=stop)
    assert files_in(tmp_path / "content") == []


def test_where_files_can_be_cloned_no_room_is_needed(store, model, monkeypatch):
    """With FICLONE the copy shares its blocks with the original; what is hashed is the copy."""
    cloned = []

    def clone(source, target):
        content = os.pread(source, 1 << 30, 0)
        os.pwrite(target, content, 0)
        cloned.append(len(content))
        return True

    monkeypatch.setattr(disk, "clone", clone)
    monkeypatch.setattr(copying, "clone", clone)
    monkeypatch.setattr(disk, "SPARE", 1 << 60)
    stored = store.add(model)
    assert sorted(cloned) == [0, 2, 3 * MIB + 5, 3 * MIB + 5]
    assert stored.cid_bytes == import_folder(model).root == import_folder(stored.path).root


def test_reading_goes_on_while_models_come_and_go(store, model, tmp_path):
    stored = store.add(model)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    (other / "more").write_bytes(b"more")
    leaves, stop, missed = leaves_of(model, "weights"), threading.Event(), []

    def read():
        while not stop.is_set():
            missed.extend(leaf for leaf in leaves if store.read_block(leaf) is None)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(10):
        store.remove(store.add(other).cid_bytes)
    stop.set()
    reader.join()
    assert missed == []
    assert store.models() == [stored]


HOLDING = """
import sys
from pathlib import Path
from ipfs_accel_node.node.content.store import StoreLock
with StoreLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path):
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AccelError, match=f"process {holder.pid} uses") as refused, StoreLock(tmp_path):
            pass
        assert refused.value.code == "already-running"
        holder.kill()
        holder.wait()
        with StoreLock(tmp_path), pytest.raises(AccelError, match=str(os.getpid())), StoreLock(tmp_path):
            pass

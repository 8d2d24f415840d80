"""Room: what has to go for something else, what may never go, and a disk that is full at any write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.backends.conversion import derived_prefix
from ipfs_accel_node.node.content.collection import DerivedForms, Room, oldest_first, plan
from ipfs_accel_node.node.content.disk import SPARE
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

SIZE = 100_000


def folder(tmp_path, name, size=SIZE):
    path = tmp_path / name
    path.mkdir()
    (path / "config.json").write_text(f'{{"model_type": "echo", "name": "{name}"}}')
    (path / "weights").write_bytes(name[:1].encode() * size)
    return path


@pytest.fixture
def make_store(tmp_path):
    def make(limit=None):
        return ModelStore(tmp_path / "store", limit=limit, derived=DerivedForms(tmp_path / "cache", derived_prefix))

    return make


def filled(store, tmp_path, names="abc"):
    """Models that were used in this order."""
    stored = [store.add(folder(tmp_path, name), name=name) for name in names]
    assert [model.name for model in oldest_first(store.models())] == list(names)
    return stored


# --- choosing


@dataclass(frozen=True)
class Model:
    name: str
    size: int
    last_used: float
    kept: bool
    cid: str = "bafy"


MODELS = st.lists(
    st.builds(Model, st.text("ab", max_size=3), st.integers(0, 100), st.floats(0, 100), st.booleans()), max_size=12
)


@given(MODELS)
def test_what_is_pinned_never_goes_and_the_oldest_go_first(models):
    chosen = oldest_first(models)
    assert not any(model.kept for model in chosen)
    assert [model.last_used for model in chosen] == sorted(model.last_used for model in models if not model.kept)


SIZES = st.integers(0, 1 << 40)


@given(SIZES, st.none() | SIZES, SIZES, SIZES, SIZES)
def test_with_what_lacks_gone_it_fits_and_no_more_has_to_go(used, limit, free, size, on_disk):
    on_disk = min(size, on_disk)
    lacking = Room(used, limit, free).lacking(size, on_disk)

    def fits(gone):
        """Whether so many bytes less are enough, said of what is held and what is free."""
        held = limit is None or used - gone + size <= limit
        return held and size - on_disk <= max(0, free - SPARE) + gone

    assert lacking >= 0
    assert fits(lacking)
    assert not lacking or not fits(lacking - 1)


# --- a store with a limit


def test_over_the_limit_nothing_is_added(make_store, tmp_path):
    store = make_store(limit=2 * SIZE + 50_000)
    filled(store, tmp_path, "ab")
    with pytest.raises(AccelError, match="disk-full") as refused:
        store.add(folder(tmp_path, "c"))
    assert "disk_limit" in refused.value.hint
    assert len(store.models()) == 2
    assert not list((tmp_path / "store" / "adding").iterdir())


def test_the_oldest_unpinned_make_room(make_store, tmp_path):
    store = make_store(limit=3 * SIZE + 50_000)
    oldest, middle, _newest = filled(store, tmp_path)
    store.pin(oldest.cid_bytes, pinned=True)
    size, on_disk = store.size_to_add(folder(tmp_path, "d"))
    chosen = store.evictable(size, store.room().lacking(size, on_disk))
    assert chosen == [middle]
    with pytest.raises(AccelError, match="disk-full") as refused:
        store.evictable(10 * SIZE, store.room().lacking(10 * SIZE))
    assert "a (1 MiB)" in refused.value.hint
    assert len(store.models()) == 3, "nothing goes where that would not be enough"


def test_a_lower_limit_is_reached_by_collecting(make_store, tmp_path):
    filled(make_store(), tmp_path)
    store = make_store(limit=2 * SIZE)
    planned = plan(store, unpinned=False)
    assert [model.name for model in planned.models] == ["a", "b"]
    assert [model.name for model in plan(make_store(), unpinned=True).models] == ["a", "b", "c"]
    assert plan(make_store(), unpinned=False).models == []


def test_converted_forms_count_and_go_with_their_model(make_store, tmp_path):
    store = make_store()
    model, other = filled(store, tmp_path, "ab")
    for cid in (model.cid, other.cid, "bafygone"):
        form = tmp_path / "cache" / f"{derived_prefix(cid)}1"
        form.mkdir(parents=True)
        (form / "openvino_model.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "cache" / "openvino-half.tmp").mkdir()
    assert store.usage()["derived"] >= 3 * 25_600
    assert store.room().used >= 2 * SIZE + 3 * 25_600
    assert [path.name for path in store.orphans()] == [f"{derived_prefix('bafygone')}1"]
    store.remove(model.cid_bytes)
    assert [path.name for path in store.orphans()] == [f"{derived_prefix('bafygone')}1"]
    assert not (tmp_path / "cache" / f"{derived_prefix(model.cid)}1").exists()
    assert (tmp_path / "cache" / f"{derived_prefix(other.cid)}1").exists()


# --- damage


def test_damage_is_found_remembered_and_mended(make_store, tmp_path):
    store = make_store()
    (model,) = filled(store, tmp_path, "a")
    with (model.path / "weights").open("r+b") as file:
        file.seek(5)
        file.write(b"?")
    told = []
    assert store.verify(model.cid_bytes, lambda *state: told.append(state)) == ["weights"]
    assert told[-1] == ("verifying", model.size, model.size)
    assert store.damaged == {model.cid_bytes: ["weights"]}
    store.add(tmp_path / "a")
    assert store.damaged == {}
    assert store.verify(model.cid_bytes) == []


# --- a full disk

HARNESS = """
import json, shutil, sys
from pathlib import Path
import trio
from ipfs_accel_node.node.content import collection
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

disk, sources, operation = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
collection.SPARE = 0  # so that writing itself meets the end of the disk, and no foresight spares it that
collection.Room.lacking = lambda self, size, on_disk=0: 0
elsewhere = ModelStore(sources / "elsewhere")
target = import_folder(sources / "second").root
elsewhere.add(sources / "second")

class Source:
    name = "elsewhere"
    async def fetch(self, cids, deliver):
        for cid in cids:
            await deliver(cid, elsewhere.read_block(cid))

outcomes = []
for level in range(int(sys.argv[4])):
    store = ModelStore(disk / "store")
    for model in store.models():
        store.remove(model.cid_bytes)
    first = store.add(sources / "first", name="first")
    filler = disk / "filler"
    filler.write_bytes(b"")
    free = shutil.disk_usage(disk).free
    try:
        filler.write_bytes(bytes(max(0, free - level * 24_000)))
    except OSError:
        pass
    try:
        if operation == "add":
            store.add(sources / "second", name="second")
        else:
            trio.run(lambda: Fetcher(store).fetch(target, [Source()], name="second"))
        outcomes.append("ok")
    except AccelError as error:
        outcomes.append(error.code)
    filler.unlink()
    again = ModelStore(disk / "store")
    models = {model.cid_bytes for model in again.models()}
    assert first.cid_bytes in models
    assert models <= {first.cid_bytes, target}
    assert all(again.verify(cid) == [] for cid in models), "no half model"
    assert (target in models) or outcomes[-1] != "ok"
    shutil.rmtree(disk / "store" / "partial")
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="a disk of its own needs root")
@pytest.mark.parametrize("operation", ["add", "fetch"])
def test_a_disk_that_fills_up_at_any_write_is_an_error_and_no_damage(tmp_path, operation):
    disk, sources = tmp_path / "disk", tmp_path / "sources"
    for path in (disk, sources):
        path.mkdir()
    folder(sources, "first", 10_000)
    second = folder(sources, "second", 200_000)
    (second / "more").write_bytes(bytes(range(256)) * 500)
    mounted = 'mount -t tmpfs -o size=1m,nr_inodes=400 tmpfs "$0" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mounted, str(disk), sys.executable, "-c", HARNESS, str(disk), str(sources)]
    done = subprocess.run([*command, operation, "20"], capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no mounts here")
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert set(outcomes) == {"ok", "disk-full"}, outcomes

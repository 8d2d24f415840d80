"""Killed at any moment: the store opens again, holds no half model, and loses none that was whole.

A process copies a store, forks for each step on the disk that an operation takes, and lets the child be killed by
SIGKILL at that step. After each it opens what is left and looks at it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HARNESS = """
import json, os, shutil, signal, sys, threading
from pathlib import Path
import trio
from ipfs_accel_node.backends.conversion import derived_prefix
from ipfs_accel_node.node.content.collection import DerivedForms, plan, remove_folders
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore

operation, base = sys.argv[1], Path(sys.argv[2])
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime"}

def write(name, **files):
    folder = base / name
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder

first = write("first", config=b"{}", weights=bytes(range(256)) * 5000)
second = write("second", config=b"[]", weights=bytes(range(255)) * 9000, same=bytes(range(256)) * 5000)
elsewhere = ModelStore(base / "elsewhere")
elsewhere.add(second)
prepared = ModelStore(base / "prepared")
whole = prepared.add(first, name="first").cid_bytes
target = import_folder(second).root
if operation not in ("add", "fetch"):
    prepared.add(second, name="second")
if operation == "collect":
    prepared.pin(whole, pinned=True)
if operation in ("mend", "repair"):
    (prepared.get(target).path / "weights").write_bytes(bytes(255 * 9000))

class Source:
    name = "elsewhere"
    async def fetch(self, cids, deliver):
        for cid in cids:
            await deliver(cid, elsewhere.read_block(cid))

def act(store):
    if operation in ("add", "mend"):
        store.add(second, name="second")
    elif operation == "remove":
        store.remove(target)
    elif operation == "rename":
        store.rename(target, "renamed")
    elif operation == "pin":
        store.pin(target, pinned=True)
    elif operation == "collect":
        planned = plan(store, unpinned=True)
        remove_folders(planned.orphans)
        for model in planned.models:
            store.remove(model.cid_bytes)
    elif operation == "repair":
        store.verify(target)
        trio.run(lambda: Fetcher(store).fetch(target, [Source()]))
    else:
        trio.run(lambda: Fetcher(store).fetch(target, [Source()]))

def die_at(fatal):
    steps, counting = 0, threading.Lock()
    def step(*_):
        nonlocal steps
        with counting:
            steps += 1
            if steps == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(lambda event, arguments: event in WATCHED and step())
    for name in ("fsync", "pwrite"):
        plain = getattr(os, name)
        setattr(os, name, lambda *arguments, plain=plain: (step(), plain(*arguments))[1])

def look(root):
    store = ModelStore(root)
    models = {model.cid_bytes: model for model in store.models()}
    assert set((root / "models").iterdir()) == {model.path for model in models.values()}
    assert list((root / "adding").iterdir()) == []
    assert models[whole].name == "first"
    for cid, model in models.items():
        damaged = store.verify(cid)
        assert not damaged or (operation in ("mend", "repair") and damaged == ["weights"]), "half a model"
        assert damaged or import_folder(model.path).root == cid
        assert store.read_block(cid) is not None
    if operation == "collect":
        assert models[whole].pinned
    if target in models and operation != "fetch":
        assert models[target].name in ("second", "renamed")
    return target in models

seen, fatal = [], 0
while True:
    fatal += 1
    root = base / "copy"
    shutil.copytree(base / "prepared", root)
    form = base / "cache" / f"{derived_prefix('bafygone')}1"
    form.mkdir(parents=True, exist_ok=True)
    (form / "openvino_model.bin").write_bytes(bytes(100))
    child = os.fork()
    if not child:
        store = ModelStore(root, derived=DerivedForms(base / "cache", derived_prefix))
        die_at(fatal)
        act(store)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the operation failed"
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    seen.append(look(root))
    shutil.rmtree(root)
sound = look(root) and ModelStore(root).verify(target) == []
print(json.dumps({"seen": seen, "end": sound}))
"""


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        ("add", False, True),
        ("fetch", False, True),
        ("remove", True, False),
        ("collect", True, False),
        ("rename", True, True),
        ("pin", True, True),
    ],
)
def test_killed_at_any_step_a_model_is_whole_or_absent(tmp_path, operation, before, after):
    command = [sys.executable, "-c", HARNESS, operation, str(tmp_path)]
    ran = subprocess.run(command, timeout=300, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    assert outcome["end"] is after
    assert len(outcome["seen"]) >= 5
    assert outcome["seen"][0] is before
    changes = [one for one, other in zip(outcome["seen"], [*outcome["seen"][1:], after], strict=True) if one != other]
    assert len(changes) == (before != after), "it happened at one step"


@pytest.mark.parametrize("operation", ["mend", "repair"])
def test_a_mending_that_is_killed_leaves_the_old_files_the_new_ones_or_none(tmp_path, operation):
    command = [sys.executable, "-c", HARNESS, operation, str(tmp_path)]
    ran = subprocess.run(command, timeout=300, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    assert outcome["end"] is True
    assert len(outcome["seen"]) > 20

"""Fetches that end early, are shared, or are taken up again: with real threads and processes that are killed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import trio
import trio.testing
from ipfs_accel_node.node.content.cid import DAG_PB
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


async def test_what_is_on_disk_already_is_not_fetched_again(far, store, source, tmp_path):
    elsewhere, there = far
    with pytest.raises(AccelError):
        await Fetcher(store).fetch(there.cid_bytes, [source("dying", elsewhere, 0, "dies", 15)])
    told, good = [], source("good", elsewhere, 0)
    reopened = ModelStore(tmp_path / "content")
    report = await Fetcher(reopened).fetch(there.cid_bytes, [good], progress=lambda *each: told.append(each[0]))
    assert report.kept > 10 * MIB
    assert sum(report.by_source.values()) < there.size - report.kept + MIB
    assert "checking" in told
    assert import_folder(reopened.models()[0].path).root == there.cid_bytes


async def test_what_was_spoilt_in_between_is_fetched_again(far, store, source):
    elsewhere, there = far
    with pytest.raises(AccelError):
        await Fetcher(store).fetch(there.cid_bytes, [source("dying", elsewhere, 0, "dies", 20)])
    partial = store.partial(there.cid_bytes)
    weights = bytearray((partial / "weights").read_bytes())
    weights[MIB + 7] ^= 1
    (partial / "weights").write_bytes(weights[: 5 * MIB + 3])
    (partial / "config.json").unlink()
    (partial / "config.json").symlink_to("/etc/passwd")
    (partial / "stray").write_bytes(b"?")
    await Fetcher(store).fetch(there.cid_bytes, [source("good", elsewhere, 0)])
    (here,) = store.models()
    assert import_folder(here.path).root == there.cid_bytes
    assert not (here.path / "stray").exists()
    assert not (here.path / "config.json").is_symlink()


async def test_a_whole_partial_folder_needs_only_the_nodes(far, store, source):
    elsewhere, there = far
    partial = store.partial(there.cid_bytes)
    for path in there.path.rglob("*"):
        target = partial / path.relative_to(there.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    good = source("good", elsewhere, 0)
    report = await Fetcher(store).fetch(there.cid_bytes, [good])
    assert report.kept == there.size
    assert {cid[1] for cid in good.asked} == {DAG_PB}


async def test_what_another_model_here_has_is_not_fetched(far, store, source, tmp_path):
    elsewhere, there = far
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "base").write_bytes((there.path / "weights").read_bytes())
    (tmp_path / "tuned" / "adapter").write_bytes(b"adapter")
    tuned = ModelStore(tmp_path / "third").add(tmp_path / "tuned")
    await Fetcher(store).fetch(there.cid_bytes, [source("a", elsewhere, 0)])
    one = source("b", ModelStore(tmp_path / "third"), 0)
    report = await Fetcher(store).fetch(tuned.cid_bytes, [one])
    assert report.kept == tuned.size - len("adapter")
    assert report.by_source["b"] < 4096
    assert len(store.models()) == 2


async def test_what_is_stored_is_not_fetched(far, source):
    elsewhere, there = far
    report = await Fetcher(elsewhere).fetch(there.cid_bytes, [])
    assert (report.kept, report.by_source) == (there.size, {})


async def test_three_that_want_one_model_share_one_fetch(far, store, source):
    elsewhere, there = far
    fetcher, one = Fetcher(store), source("one", elsewhere, 0)
    told, reports = [[], [], []], []

    async def want(number):
        reports.append(await fetcher.fetch(there.cid_bytes, [one], progress=lambda *each: told[number].append(each)))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(want, number)
    assert set(one.asked.values()) == {1}
    assert reports[0] is reports[1] is reports[2]
    assert all(each[-1] == ("storing", there.size, there.size) for each in told)
    assert len(store.models()) == 1


async def test_a_shared_fetch_that_fails_fails_for_all(far, store, source):
    elsewhere, there = far
    fetcher, dying = Fetcher(store), source("dying", elsewhere, 0, "lies", 5)
    codes = []

    async def want():
        with pytest.raises(AccelError) as failed:
            await fetcher.fetch(there.cid_bytes, [dying])
        codes.append(failed.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        nursery.start_soon(want)
    assert codes == ["corrupt-content"] * 2
    assert fetcher._running == {}


async def test_when_the_first_leaves_the_second_goes_on(far, store, source):
    elsewhere, there = far
    fetcher, begun = Fetcher(store), trio.Event()
    slow, good = source("slow", elsewhere, 0.01), source("good", elsewhere, 0)

    async def first(scope):
        with scope:
            await fetcher.fetch(there.cid_bytes, [slow], progress=lambda state, *_: state == "fetching" and begun.set())

    async def second():
        await fetcher.fetch(there.cid_bytes, [good])

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(first, scope)
        await begun.wait()
        nursery.start_soon(second)
        await trio.testing.wait_all_tasks_blocked()
        assert good.served == 0
        scope.cancel()
    assert good.served > 0
    assert len(store.models()) == 1


async def test_a_cancelled_fetch_leaves_nothing_running_and_its_part_on_disk(far, store, source):
    elsewhere, there = far
    slow = source("slow", elsewhere, 0.002)
    with trio.CancelScope() as scope:
        await Fetcher(store).fetch(
            there.cid_bytes, [slow], progress=lambda _, done, __: done > 5 * MIB and scope.cancel()
        )
    assert scope.cancelled_caught
    assert slow.calls_at_once == 0
    report = await Fetcher(store).fetch(there.cid_bytes, [source("good", elsewhere, 0)])
    assert report.kept >= 5 * MIB


FETCHING = """
import os, signal, sys
from pathlib import Path
import trio
import trio.testing
from ipfs_accel_node.node.content import places
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.store import ModelStore

elsewhere, here, fatal = ModelStore(Path(sys.argv[1])), ModelStore(Path(sys.argv[2])), int(sys.argv[3])
(model,) = elsewhere.models()
write_at, written = places.write_at, 0

def write_until_killed(path, offsets, block):
    global written
    written += 1
    if written == fatal:
        with open(path, "r+b") as file:  # killed in the middle of a write
            file.seek(offsets[0])
            file.write(block[: len(block) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    write_at(path, offsets, block)

class Source:
    def __init__(self, name):
        self.name = name
    async def fetch(self, cids, deliver):
        for cid in cids:
            await deliver(cid, elsewhere.read_block(cid))

places.write_at = write_until_killed
trio.run(lambda: Fetcher(here).fetch(model.cid_bytes, [Source("a"), Source("b"), Source("c")]))
"""


def fetch_in_a_process(elsewhere, here, fatal):
    command = [sys.executable, "-c", FETCHING, str(elsewhere), str(here), str(fatal)]
    return subprocess.run(command, timeout=60, check=False).returncode


async def test_killed_at_half_it_fetches_the_other_half_only(far, source, tmp_path):
    elsewhere, there = far
    roots = (there.path.parents[1], tmp_path / "content")
    assert await trio.to_thread.run_sync(fetch_in_a_process, *roots, 15) == -9
    store = ModelStore(tmp_path / "content")
    assert store.models() == []
    report = await Fetcher(store).fetch(there.cid_bytes, [source("good", elsewhere, 0)])
    assert report.kept >= 10 * MIB
    assert sum(report.by_source.values()) <= there.size - report.kept + 64 * 1024  # and the nodes
    assert import_folder(store.models()[0].path).root == there.cid_bytes


MEASURED = """
import hashlib, json, resource, sys
from pathlib import Path
import trio
import trio.testing
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.node.content.unixfs import Link, encode_directory, encode_file

COUNT, SIZE = 192, 1 << 20
block = lambda number: number.to_bytes(8, "big") * (SIZE // 8)
numbers = {make_cid(RAW, block(number)): number for number in range(COUNT)}
file = encode_file([Link(cid, "", SIZE) for cid in numbers], [SIZE] * COUNT)
root = encode_directory([Link(make_cid(DAG_PB, file), "weights", COUNT * SIZE + len(file))])
nodes = {make_cid(DAG_PB, node): node for node in (file, root)}

class Source:
    def __init__(self, name):
        self.name = name
    async def fetch(self, cids, deliver):
        for cid in cids:
            await trio.lowlevel.checkpoint()
            await deliver(cid, nodes[cid] if cid in nodes else block(numbers[cid]))

store = ModelStore(Path(sys.argv[1]))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
report = trio.run(lambda: Fetcher(store).fetch(make_cid(DAG_PB, root), [Source(name) for name in "abcdef"]))
print(json.dumps({"grown": peak() - before, "size": report.size}))
"""


def test_memory_is_bounded(tmp_path):
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "content")]
    measured = json.loads(subprocess.run(command, timeout=120, check=True, stdout=subprocess.PIPE).stdout)
    assert measured["size"] == 192 * MIB
    assert measured["grown"] < 64 * MIB

"""Models that others made, of every kind of block: fetched, kept, and served on from the plain folder."""

from __future__ import annotations

import random

import pytest
import trio
from fuzzing.dags import Builder, Make
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

TREE = {
    "config.json": b"{}",
    "empty": b"",
    "weights": random.Random(1).randbytes(700_000),
    "again": random.Random(1).randbytes(300_000),
    "zeros": bytes(200_000),
    "model": {"link": "../weights", "void": {}},
}
MAKES = [
    Make(chunk=4096, width=20, version=0, leaves="file"),
    Make(chunk=4096, width=20, version=0, leaves="data", layout="trickle", fanout=8),
    Make(chunk=9000, width=20, leaves="odd", sizes="wrong", varying=True),
    Make(chunk=4096, width=20, leaves="raw", layout="ragged", own=50),
    Make(chunk=4096, width=20, leaves="unsized", inline=128, mtime=True, fanout=256),
]


class Blocks:
    """What a builder made."""

    def __init__(self, builder):
        self.read_block = builder.blocks.get


@pytest.fixture(autouse=True)
def threads_take_no_time(monkeypatch):
    """A virtual clock would run on while a thread works; here what threads do is done at once instead."""

    async def run_at_once(function, *arguments):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_at_once)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", MAKES)
async def test_a_model_goes_from_one_node_to_the_next(store, source, tmp_path, autojump_clock, make):
    builder = Builder(make)
    root = builder.root(TREE)
    await Fetcher(store).fetch(root, [source("elsewhere", Blocks(builder), delay=0.001)])
    next_one = ModelStore(tmp_path / "next")
    report = await Fetcher(next_one).fetch(root, [source("here", store, delay=0.001)])
    (here,), (there,) = store.models(), next_one.models()
    assert files_of(here.path) == files_of(there.path)
    assert (there.path / "model/link").is_symlink()
    assert make.own or (there.path / "model/link").read_bytes() == TREE["weights"]
    assert report.size == here.size == there.size
    assert next_one._layout.contents(root).read_bytes() == store._layout.contents(root).read_bytes()
    reopened = ModelStore(tmp_path / "next")
    assert {cid: reopened.read_block(cid) for cid in builder.blocks} == builder.blocks
    assert reopened.verify(root) == []


async def test_what_was_presumed_wrong_costs_a_second_walk_and_no_more(store, source, autojump_clock):
    """A node says that what is below it is a leaf, and it is a node."""
    builder = Builder(Make(chunk=1000, leaves="file", version=0))
    parts = [builder.file(random.Random(each).randbytes(1000 + 999 * (each % 2))) for each in range(20)]
    builder.make = Make(leaves="file", version=0, sizes="none")
    root = builder.node([(builder.joined(parts), "weights")], b"\x08\x01", 0).cid
    there = source("a", Blocks(builder), delay=0.001)
    report = await Fetcher(store).fetch(root, [there])
    (here,) = store.models()
    assert (here.path / "weights").read_bytes() == b"".join(
        random.Random(each).randbytes(1000 + 999 * (each % 2)) for each in range(20)
    )
    assert there.asked[root] == 2
    assert max(there.asked.values()) <= 3
    assert sum(report.by_source.values()) >= report.size


async def test_what_an_interrupted_fetch_left_is_kept(store, source, autojump_clock):
    builder = Builder(Make(chunk=4096, width=20, version=0, leaves="file"))
    root = builder.root(TREE)
    with pytest.raises(AccelError):
        await Fetcher(store).fetch(root, [source("a", Blocks(builder), fault="dies", after=120)])
    there = source("b", Blocks(builder))
    report = await Fetcher(store).fetch(root, [there])
    assert report.kept > 100 * 4096
    assert not [cid for cid in builder.leaves if there.asked[cid] > 1]
    (here,) = store.models()
    assert (here.path / "weights").read_bytes() == TREE["weights"]


async def test_a_damaged_wrapped_leaf_is_not_served(store, source, autojump_clock):
    builder = Builder(Make(chunk=4096, width=20, version=0, leaves="file"))
    root = builder.root(TREE)
    await Fetcher(store).fetch(root, [source("a", Blocks(builder), delay=0.001)])
    (here,) = store.models()
    with (here.path / "weights").open("r+b") as file:
        file.seek(650_000)
        file.write(b"damage")
    missing = [cid for cid in builder.blocks if store.read_block(cid) is None]
    assert len(missing) == 1
    assert TREE["weights"][158 * 4096 : 159 * 4096] in builder.blocks[missing[0]]
    assert store.verify(root) == ["weights"]

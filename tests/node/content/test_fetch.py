"""Fetching: verified, from several sources at once, whole or absent; what one source does wrong costs its share."""

from __future__ import annotations

import itertools
import random

import pytest
import trio
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.node.content.unixfs import Link, encode_directory, encode_file
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


@pytest.fixture(autouse=True)
def threads_take_no_time(monkeypatch):
    """A virtual clock would run on while a thread works; here what threads do is done at once instead."""

    async def run_at_once(function, *arguments):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_at_once)


def tree(folder):
    """Everything in a folder: bytes by path, None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def contents_of(store, model):
    return (store._layout.contents(model.cid_bytes)).read_bytes()


async def test_it_becomes_the_same_model(far, store, source, autojump_clock):
    elsewhere, there = far
    told = []
    report = await Fetcher(store).fetch(
        there.cid_bytes, [source("a", elsewhere)], name="near", progress=lambda *each: told.append(each)
    )
    (here,) = store.models()
    assert (here.cid, here.name, here.size) == (there.cid, "near", there.size)
    assert tree(here.path) == tree(there.path)
    assert contents_of(store, here) == contents_of(elsewhere, there)
    assert Contents.unpack(contents_of(store, here)).empty_folders == ["sub/void"]
    assert not store._layout.partial(here.cid_bytes).exists()
    assert (report.size, report.kept, report.surplus) == (here.size, 0, 0)
    states = [state for number, (state, *_) in enumerate(told) if number == 0 or told[number - 1][0] != state]
    assert states == ["listing", "checking", "fetching", "storing"]
    assert all(before[1] <= after[1] <= here.size for before, after in itertools.pairwise(told))
    assert told[-1] == ("storing", here.size, here.size)


async def test_progress_is_told_seldom(far, store, source, autojump_clock):
    elsewhere, there = far
    told = []
    began = trio.current_time()
    await Fetcher(store).fetch(
        there.cid_bytes, [source("a", elsewhere, 0.01)], progress=lambda *each: told.append(each)
    )
    assert len(told) <= 10 * (trio.current_time() - began) + 8


async def test_a_chunk_that_occurs_again_is_fetched_once(far, store, source, autojump_clock):
    elsewhere, there = far
    one = source("one", elsewhere)
    report = await Fetcher(store).fetch(there.cid_bytes, [one])
    assert set(one.asked.values()) == {1}
    assert sum(report.by_source.values()) < there.size - 3.9 * MIB


async def test_three_equal_sources_share_the_work(far, store, source, autojump_clock):
    elsewhere, there = far
    sources = [source(name, elsewhere, 0.01) for name in "abc"]
    report = await Fetcher(store).fetch(there.cid_bytes, sources)
    assert len(report.by_source) == 3
    assert min(report.by_source.values()) > 0.15 * sum(report.by_source.values())


async def test_three_sources_are_three_times_as_fast(far, store, source, tmp_path, autojump_clock):
    elsewhere, there = far
    alone = await Fetcher(store).fetch(there.cid_bytes, [source("a", elsewhere, 0.1)])
    other = ModelStore(tmp_path / "other")
    together = await Fetcher(other).fetch(there.cid_bytes, [source(name, elsewhere, 0.1) for name in "abc"])
    assert together.seconds < 0.5 * alone.seconds
    assert together.surplus <= 3 * MIB


async def test_a_slow_source_does_not_hold_the_end_up(far, store, source, autojump_clock):
    elsewhere, there = far
    sources = [source("slow", elsewhere, 5), source("fast", elsewhere, 0.01)]
    report = await Fetcher(store).fetch(there.cid_bytes, sources)
    assert report.seconds < 6  # alone, the slow one would take two minutes
    assert report.by_source["fast"] > 0.8 * sum(report.by_source.values())


FAULTS = [
    "dies", "breaks", "breaks in a nursery", "says nothing", "stalls", "lies", "lies about length",
    "sends too much", "lacks", "answers what nobody asked",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("after", [0, 1, 10])
async def test_a_faulty_source_costs_its_own_share_only(far, store, source, fault, after, autojump_clock):
    elsewhere, there = far
    bad = source("bad", elsewhere, 0.01, fault, after)
    with trio.fail_after(60):
        report = await Fetcher(store).fetch(there.cid_bytes, [bad, source("good", elsewhere, 0.01)])
    assert tree(store.models()[0].path) == tree(there.path)
    assert report.by_source.get("bad", 0) <= after * MIB
    if fault.startswith("lies") or fault == "sends too much":
        assert bad.served <= after + 10, "a liar is dropped at once"


@pytest.mark.parametrize(
    ("fault", "code", "why"),
    [
        ("dies", "content-not-found", "the peer left"),
        ("breaks", "content-not-found", "a mistake in the source"),
        ("says nothing", "content-not-found", "without an answer"),
        ("stalls", "content-not-found", "silent for"),
        ("lacks", "content-not-found", "lacks"),
        ("lies", "corrupt-content", "not what its CID says"),
        ("answers what nobody asked", "content-not-found", "not asked for"),
    ],
)
@pytest.mark.parametrize("after", [0, 3])
async def test_when_nobody_is_left_each_is_named_with_its_fault(
    far, store, source, fault, code, why, after, autojump_clock
):
    elsewhere, there = far
    sources = [source(name, elsewhere, 0.01, fault, after) for name in ("first", "second")]
    with trio.fail_after(120), pytest.raises(AccelError) as failed:
        await Fetcher(store).fetch(there.cid_bytes, sources)
    assert failed.value.code == code
    assert there.cid in failed.value.message
    assert all(f"{name}: " in failed.value.message for name in ("first", "second"))
    assert why in failed.value.message
    assert failed.value.hint
    assert store.models() == []


async def test_a_source_that_is_lost_once_gets_another_try(far, store, source, autojump_clock):
    elsewhere, there = far
    flaky = source("flaky", elsewhere, 0.01, "dies", 4)
    serve, failures = flaky._serve, []

    async def serve_but_fail_once(cid, deliver):
        try:
            await serve(cid, deliver)
        except AccelError as error:
            flaky.fault = None
            failures.append(error)
            raise

    flaky._serve = serve_but_fail_once
    await Fetcher(store).fetch(there.cid_bytes, [flaky])
    assert len(failures) == 1
    assert len(store.models()) == 1


async def test_sources_that_each_have_a_part_are_enough_together(far, store, source, autojump_clock):
    elsewhere, there = far

    class Half:
        def __init__(self, odd):
            self.odd = odd

        def read_block(self, cid):
            block = elsewhere.read_block(cid)
            return block if cid[1] == DAG_PB or cid[-1] % 2 == self.odd else None

    report = await Fetcher(store).fetch(there.cid_bytes, [source("even", Half(0)), source("odd", Half(1))])
    assert len(report.by_source) == 2
    assert len(store.models()) == 1


async def test_many_sources_are_used_a_few_at_a_time(far, store, source, autojump_clock):
    elsewhere, there = far
    at_once = [0, 0]

    class Counting(source):
        async def _serve(self, cid, deliver):
            at_once[0] += 1
            at_once[1] = max(at_once)
            try:
                await super()._serve(cid, deliver)
            finally:
                at_once[0] -= 1

    await Fetcher(store).fetch(there.cid_bytes, [Counting(f"s{number}", elsewhere) for number in range(40)])
    assert 3 <= at_once[1] <= 12


async def test_without_sources_it_says_so(store, autojump_clock):
    with pytest.raises(AccelError, match="no peer offers it") as failed:
        await Fetcher(store).fetch(make_cid(DAG_PB, b"somewhere"), [])
    assert failed.value.code == "content-not-found"


async def test_no_room_is_told_before_disk_is_spent(far, store, source, monkeypatch, autojump_clock):
    elsewhere, there = far
    monkeypatch.setattr("ipfs_accel_node.node.content.collection.SPARE", 1 << 60)
    one = source("a", elsewhere)
    with pytest.raises(AccelError, match="do not fit") as failed:
        await Fetcher(store).fetch(there.cid_bytes, [one])
    assert failed.value.code == "disk-full"
    assert {cid[1] for cid in one.asked} == {DAG_PB}
    assert list(store._layout.partial(there.cid_bytes).iterdir()) == []


async def test_a_disk_that_fills_up_meanwhile_has_its_code(far, store, source, monkeypatch, autojump_clock):
    elsewhere, there = far

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ipfs_accel_node.node.content.places.write_at", full)
    with pytest.raises(AccelError) as failed:
        await Fetcher(store).fetch(there.cid_bytes, [source("a", elsewhere)])
    assert failed.value.code == "disk-full"
    assert store.models() == []


class Blocks:
    """A store of given blocks."""

    def __init__(self, *blocks, leaves=()):
        self.blocks = {make_cid(DAG_PB, block): block for block in blocks} | {
            make_cid(RAW, leaf): leaf for leaf in leaves
        }

    def read_block(self, cid):
        return self.blocks.get(cid)


async def test_a_link_may_lie_about_all_that_is_below_it(store, source, autojump_clock):
    """Tsize is nothing but a hint: the leaf itself tells how long it is, on a second walk."""
    root = encode_directory([Link(make_cid(RAW, b"four"), "a", 5), Link(make_cid(RAW, b"much"), "b", 1 << 62)])
    there = source("a", Blocks(root, leaves=[b"four", b"much"]))
    report = await Fetcher(store).fetch(make_cid(DAG_PB, root), [there])
    (here,) = store.models()
    assert tree(here.path) == {"a": b"four", "b": b"much"}
    assert (report.size, store.verify(here.cid_bytes)) == (8, [])
    assert there.asked[make_cid(RAW, b"four")] <= 2


async def test_a_leaf_of_another_length_than_its_file_says_is_the_files_fault(store, source, autojump_clock):
    links = [Link(make_cid(RAW, leaf), "", 4) for leaf in (b"four", b"fives")]
    file = encode_file(links, [4, 4])
    root = encode_directory([Link(make_cid(DAG_PB, file), "a", 99)])
    with pytest.raises(AccelError, match="leaf of 4 bytes, and its block has 5") as failed:
        await Fetcher(store).fetch(
            make_cid(DAG_PB, root), [source("a", Blocks(root, file, leaves=[b"four", b"fives"]))]
        )
    assert failed.value.code == "hostile-content"
    assert store.models() == []


async def test_bytes_that_are_in_their_cids_need_nobody(store, source, autojump_clock):
    inline = b"\x01\x55\x00\x02{}"
    root = encode_directory([Link(inline, "config.json", 2), Link(make_cid(RAW, b""), "empty", 0)])
    report = await Fetcher(store).fetch(make_cid(DAG_PB, root), [source("a", Blocks(root))])
    (here,) = store.models()
    assert tree(here.path) == {"config.json": b"{}", "empty": b""}
    assert report.size == 2


async def test_chunks_of_another_size_make_the_same_files(store, source, autojump_clock):
    """Kubo's default of 256 KiB: the CID is another, the plain file is not."""
    content = random.Random(5).randbytes(3 * MIB + 77)
    leaves = [content[at : at + 262144] for at in range(0, len(content), 262144)]
    links = [Link(make_cid(RAW, leaf), "", len(leaf)) for leaf in leaves]
    groups = [encode_file(group, [link.size for link in group]) for group in (links[:8], links[8:])]
    sizes = [sum(link.size for link in group) for group in (links[:8], links[8:])]
    file = encode_file([Link(make_cid(DAG_PB, group), "", 1) for group in groups], sizes)
    root = encode_directory([Link(make_cid(DAG_PB, file), "weights", 1)])
    await Fetcher(store).fetch(make_cid(DAG_PB, root), [source("a", Blocks(root, file, *groups, leaves=leaves))])
    (here,) = store.models()
    assert (here.path / "weights").read_bytes() == content
    assert all(store.read_block(make_cid(RAW, leaf)) == leaf for leaf in leaves)
    assert import_folder(here.path).root != here.cid_bytes

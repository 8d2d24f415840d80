"""Fetching: verified, from several sources at once, resumable, whole or absent."""

from __future__ import annotations

import random

import pytest
import trio
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


class Source:
    """A source in memory; `delay` seconds a block, and what its name says it does wrong."""

    def __init__(self, name, store, delay=0.0, fault=None, after=0):
        self.name, self.store, self.delay, self.fault, self.after = name, store, delay, fault, after
        self.served = 0

    async def fetch(self, cids, deliver):
        for cid in cids:
            await trio.sleep(self.delay)
            block = self.store.read_block(cid)
            self.served += 1
            if self.fault and self.served > self.after:
                if self.fault == "dies":
                    raise AccelError("peer-lost", "the peer left")
                if self.fault == "stalls":
                    await trio.sleep_forever()
                if self.fault == "lies":
                    block = bytes(len(block))
                if self.fault == "lacks":
                    block = None
                if self.fault == "lies about length":
                    block += b"x"
            await deliver(cid, block)


@pytest.fixture
def there(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    rng = random.Random(1)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "empty").write_bytes(b"")
    (folder / "weights").write_bytes(rng.randbytes(48 * MIB + 5))
    (folder / "same").write_bytes((folder / "weights").read_bytes()[: 2 * MIB])
    store = ModelStore(tmp_path / "there")
    return store, store.add(folder, name="far")


@pytest.fixture
def here(tmp_path):
    return ModelStore(tmp_path / "here")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Threads write what is fetched, so the clock is the real one, and silence has to be short."""
    monkeypatch.setattr("ipfs_accel_node.node.content.fetch._STALL_S", 0.5)


async def fetch(store, cid, sources, progress=lambda *_: None):
    with trio.fail_after(60):
        return await Fetcher(store).fetch(cid, sources, name="near", progress=progress)


async def test_it_becomes_the_same_model(there, here):
    far, model = there
    progress = []
    report = await fetch(here, model.cid_bytes, [Source("a", far)], lambda *each: progress.append(each))
    (stored,) = here.models()
    assert (stored.cid, stored.name, stored.size) == (model.cid, "near", model.size)
    assert import_folder(stored.path).root == model.cid_bytes
    assert (report.size, report.kept) == (model.size, 0)
    assert progress[-1] == ("fetching", model.size, model.size)
    assert here.read_block(model.cid_bytes) == far.read_block(model.cid_bytes)


async def test_three_equal_sources_share_the_work(there, here):
    far, model = there
    report = await fetch(here, model.cid_bytes, [Source(name, far, 0.01) for name in "abc"])
    assert len(report.by_source) == 3
    assert min(report.by_source.values()) > 0.15 * sum(report.by_source.values())


async def test_a_slow_source_does_not_hold_the_end_up(there, here):
    far, model = there
    began = trio.current_time()
    report = await fetch(here, model.cid_bytes, [Source("fast", far, 0.001), Source("slow", far, 0.4)])
    assert trio.current_time() - began < 5  # alone, the slow one would take 20
    assert report.by_source["fast"] > 0.8 * model.size * 0.9


@pytest.mark.parametrize("fault", ["dies", "stalls", "lies", "lacks", "lies about length"])
@pytest.mark.parametrize("after", [0, 1, 10])
async def test_a_faulty_source_costs_its_own_share_only(there, here, fault, after):
    far, model = there
    bad = Source("bad", far, 0.001, fault, after)
    await fetch(here, model.cid_bytes, [bad, Source("good", far, 0.001)])
    assert import_folder(here.models()[0].path).root == model.cid_bytes


@pytest.mark.parametrize(
    ("fault", "code"), [("dies", "content-not-found"), ("lies", "corrupt-content"), ("lacks", "content-not-found"),
                        ("stalls", "content-not-found")]
)  # fmt: skip
async def test_when_nobody_is_left_each_is_named_with_its_fault(there, here, fault, code):
    far, model = there
    with pytest.raises(AccelError) as failed:
        await fetch(here, model.cid_bytes, [Source("first", far, 0, fault, 3), Source("second", far, 0, fault, 3)])
    assert failed.value.code == code
    assert "first:" in failed.value.message
    assert here.models() == []


async def test_without_sources_it_says_so(here):
    with pytest.raises(AccelError, match="no peer offers it"):
        await fetch(here, b"\x01\x70\x12\x20" + bytes(32), [])


async def test_what_is_on_disk_already_is_not_fetched_again(there, here, tmp_path):
    far, model = there
    with pytest.raises(AccelError):
        await fetch(here, model.cid_bytes, [Source("dying", far, 0, "dies", 25)])
    reopened = ModelStore(tmp_path / "here")
    good = Source("good", far)
    report = await fetch(reopened, model.cid_bytes, [good])
    assert report.kept > 15 * MIB
    assert sum(report.by_source.values()) < model.size - report.kept + 2 * MIB
    assert import_folder(reopened.models()[0].path).root == model.cid_bytes


async def test_two_that_want_one_model_share_one_fetch(there, here):
    far, model = there
    fetcher, source = Fetcher(here), Source("a", far)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: fetcher.fetch(model.cid_bytes, [source], name=None, progress=lambda *_: None))
    assert source.served <= 60
    assert len(here.models()) == 1


async def test_a_cancelled_fetch_leaves_the_way_free_for_the_next(there, here):
    far, model = there
    fetcher = Fetcher(here)
    with trio.move_on_after(0.2):
        await fetcher.fetch(model.cid_bytes, [Source("slow", far, 0.05)], name=None, progress=lambda *_: None)
    assert here.models() == []
    await fetcher.fetch(model.cid_bytes, [Source("good", far)], name=None, progress=lambda *_: None)
    assert len(here.models()) == 1


async def test_no_room_is_told_before_disk_is_spent(there, here, monkeypatch):
    far, model = there
    monkeypatch.setattr("ipfs_accel_node.node.content.store.SPARE", 1 << 60)
    source = Source("a", far)
    with pytest.raises(AccelError, match="disk-full"):
        await fetch(here, model.cid_bytes, [source])
    assert source.served <= 5

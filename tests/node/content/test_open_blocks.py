"""Which blocks may go to anybody: those that a model has which is not gated, and no others, whatever comes and goes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import RAW, V0, cid_of
from ipfs_accel_node.node.content.store import ModelStore, Origin
from ipfs_accel_node.node.public_blocks import PublicBlocks

GATED = Origin(gated=True)


def make(folder, name, *texts):
    path = folder / name
    path.mkdir(parents=True)
    for text in texts:
        (path / text).write_text(text)
    return path


def blocks_of(store, stored):
    contents = store._contents[stored.cid_bytes]
    return {*contents.nodes, *(cid_of(RAW, digest) for file in contents.files for digest in file.split())}


def opened(store, cids):
    return {cid for cid in cids if store.is_open(cid)}


def test_a_gated_model_s_blocks_are_not_open_and_can_be_read_by_members(store, tmp_path):
    stored = store.add(make(tmp_path, "secret", "a", "b"), origin=GATED)
    blocks = blocks_of(store, stored)
    assert opened(store, blocks) == set()
    assert all(store.read_block(cid) for cid in blocks)


@pytest.mark.parametrize("gated_first", [True, False])
def test_what_an_open_model_has_too_is_open(store, tmp_path, gated_first):
    pair = [(make(tmp_path, "secret", "shared", "secret"), GATED), (make(tmp_path, "open", "shared", "open"), Origin())]
    added = [store.add(path, origin=origin) for path, origin in (pair if gated_first else reversed(pair))]
    secret, open_one = added if gated_first else reversed(added)
    every = blocks_of(store, secret) | blocks_of(store, open_one)
    assert opened(store, every) == blocks_of(store, open_one)
    assert opened(ModelStore(tmp_path / "content"), every) == blocks_of(store, open_one)
    remaining = blocks_of(store, open_one)
    store.remove(open_one.cid_bytes)
    assert opened(store, remaining) == set()


def test_a_model_that_is_found_to_be_gated_is_closed_at_once(store, tmp_path):
    path = make(tmp_path, "model", "a")
    stored = store.add(path)
    blocks = blocks_of(store, stored)
    assert opened(store, blocks) == blocks
    store.add(path, origin=GATED)
    assert opened(store, blocks) == set()
    store.add(path, origin=Origin())
    assert opened(store, blocks) == set()


async def test_a_block_goes_by_its_digest_whatever_version_is_asked_for(store, tmp_path):
    public = PublicBlocks(store)
    for name, origin in (("open", Origin()), ("secret", GATED)):
        stored = store.add(make(tmp_path, name, name), origin=origin)
        for cid in blocks_of(store, stored):
            for form in (cid, V0 + cid[-32:]):
                assert public.has(form) == (name == "open")
                assert (await public.read(form) is not None) == (name == "open")
    for nonsense in (b"", b"x", bytes(36), b"\x01\x55\x00\x03abc"):
        assert not public.has(nonsense)
        assert await public.read(nonsense) is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sets(st.sampled_from("abcd"), min_size=1), st.booleans(), st.booleans()), max_size=6))
def test_adding_and_removing_in_any_order(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("any-order")
    store, every = ModelStore(folder / "store"), set()
    for number, (texts, gated, removed) in enumerate(changes):
        stored = store.add(make(folder, str(number), *texts), origin=Origin(gated=gated))
        every |= blocks_of(store, stored)
        if removed:
            store.remove(stored.cid_bytes)
    open_ones = [blocks_of(store, each) for each in store.models() if not each.origin.gated]
    assert opened(store, every) == set().union(*open_ones)

"""A model from an IPFS daemon as one stream, which may lie, break off, be of no use or not pay."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content import kubo_export
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.outside import DaemonBlocks
from ipfs_accel_node.protocols.errors import AccelError
from kubo_daemons import running

GET, EXPORT = "/api/v0/block/get", "/api/v0/dag/export"


@pytest.fixture
def serve(far):
    """Starts a fake that has the model, and does a fault."""
    with ExitStack() as stack:

        def start(fault=""):
            kubo = FakeKubo()
            kubo.fault = fault
            kubo.hold(far[0])
            kubo.url = stack.enter_context(serving(kubo))
            return kubo

        yield start


async def fetch(store, model, *sources):
    try:
        return await Fetcher(store).fetch(model.cid_bytes, sources)
    finally:
        for source in sources:
            await source.aclose()


async def test_a_model_comes_from_a_daemon(daemon, store, far):
    await daemon.take(far[0], far[1].cid_bytes)
    source = DaemonBlocks(daemon.address, None, far[1].cid_bytes)
    report = await fetch(store, far[1], source)
    assert [model.cid for model in store.models()] == [far[1].cid]
    assert not store.verify(far[1].cid_bytes)
    assert list(report.by_source) == [source.name]
    assert report.surplus == 0


async def test_it_does_so_with_authorization_in_every_question(store, far, tmp_path):
    with running("fake", tmp_path, "Bearer very-secret") as daemon:
        await daemon.take(far[0], far[1].cid_bytes)
        await fetch(store, far[1], DaemonBlocks(daemon.address, "Bearer very-secret", far[1].cid_bytes))
    assert [model.cid for model in store.models()] == [far[1].cid]


async def test_folders_and_the_first_leaves_are_asked_for_and_the_others_come_in_the_stream(serve, store, far):
    kubo = serve()
    await fetch(store, far[1], DaemonBlocks(kubo.url, None, far[1].cid_bytes))
    contents = store.contents(far[1].cid_bytes)
    assert kubo.asked.count(EXPORT) == 1
    assert len(contents.nodes) + 16 <= kubo.asked.count(GET) <= len(contents.nodes) + 24
    assert kubo.asked.index(EXPORT) > len(contents.nodes)


@pytest.mark.parametrize(
    "fault", ["the stream breaks off", "the stream is no CAR", "the stream is of no use", "dag/export hangs"]
)
async def test_a_stream_that_does_not_give_it_is_left_for_good(serve, store, far, monkeypatch, fault):
    monkeypatch.setattr(kubo_export, "PATIENCE_S", 1.0)
    kubo = serve(fault)
    await fetch(store, far[1], DaemonBlocks(kubo.url, None, far[1].cid_bytes))
    assert [model.cid for model in store.models()] == [far[1].cid]
    assert not store.verify(far[1].cid_bytes)
    assert kubo.asked.count(EXPORT) == 1


async def test_a_daemon_without_dag_export_gives_it_block_by_block(serve, store, far):
    kubo = serve()
    kubo.lacking = {"dag/export"}
    await fetch(store, far[1], DaemonBlocks(kubo.url, None, far[1].cid_bytes))
    assert not store.verify(far[1].cid_bytes)


async def test_a_stream_that_lies_is_found_out(serve, store, far):
    liar, good = serve("the stream lies"), serve()
    with pytest.raises(AccelError) as failed:
        await fetch(store, far[1], DaemonBlocks(liar.url, None, far[1].cid_bytes))
    assert failed.value.code == "corrupt-content"
    await fetch(store, far[1], DaemonBlocks(good.url, None, far[1].cid_bytes))
    assert not store.verify(far[1].cid_bytes)


async def test_what_is_written_wrong_here_ends_the_fetch(serve, store, far, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ipfs_accel_node.node.content.orders.write_at", full)
    kubo = serve()
    with pytest.raises(AccelError) as failed:
        await fetch(store, far[1], DaemonBlocks(kubo.url, None, far[1].cid_bytes))
    assert failed.value.code == "disk-full"


async def test_a_fetch_that_is_cancelled_leaves_nothing_behind(serve, store, far, monkeypatch):
    kubo = serve("dag/export hangs")
    source = DaemonBlocks(kubo.url, None, far[1].cid_bytes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, store, far[1], source)
        while EXPORT not in kubo.asked:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert source._export.over
    assert not store.models()


async def test_a_stream_of_which_nothing_is_wanted_for_a_while_is_left(serve, store, far, monkeypatch):
    class Dawdling(DaemonBlocks):
        async def write(self, orders, settled):
            await trio.sleep(0.2)
            return await super().write(orders, settled)

    monkeypatch.setattr(kubo_export, "IDLE_S", 0.1)
    kubo = serve()
    await fetch(store, far[1], Dawdling(kubo.url, None, far[1].cid_bytes))
    assert not store.verify(far[1].cid_bytes)
    assert kubo.asked.count(EXPORT) == 1
    assert GET in kubo.asked[kubo.asked.index(EXPORT) :]

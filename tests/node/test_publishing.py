"""Giving models to an IPFS daemon, one at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.node.publishing import Publisher
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture
def kubo():
    daemon = FakeKubo()
    with serving(daemon) as daemon.url:
        yield daemon


@pytest.fixture
def publisher(tmp_path, kubo):
    """Of a node that has one model, named mine."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    store = ModelStore(tmp_path / "store")
    store.add(tmp_path / "model", name="mine")
    paths = SimpleNamespace(published=tmp_path / "published.json")
    config = SimpleNamespace(kubo=kubo.url, kubo_auth=None, kubo_publish=False, paths=paths)
    catalogue = SimpleNamespace(require_here=store.resolve, resolve=lambda text: store.resolve(text).cid_bytes)
    return Publisher(config, store, catalogue)


def quiet(*_):
    pass


async def test_another_publishing_is_waited_for_and_not_for_ever(publisher, kubo):
    kubo.fault = "pin/add hangs"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publisher.publish("mine", on_progress=quiet))
        while "/api/v0/pin/add" not in kubo.asked:
            await trio.sleep(0.01)
        with pytest.raises(AccelError) as refused:
            await publisher.publish("mine", patience_s=0.1, on_progress=quiet)
        assert refused.value.code == "busy"
        nursery.cancel_scope.cancel()
    kubo.fault, kubo.provided = "", []
    assert (await publisher.publish("mine", on_progress=quiet))["provided"] is True


@pytest.mark.parametrize("as_files", [False, True])
async def test_a_provide_that_fails_is_told_and_the_model_is_published(publisher, kubo, as_files):
    kubo.provided = [
        {"Type": 3, "ID": "12D3KooWother", "Extra": "that peer is away", "Responses": None},
        {"Type": 3, "ID": "", "Extra": "nobody is left", "Responses": None},
    ]
    told = await publisher.publish("mine", as_files=as_files, on_progress=quiet)
    assert (told["published"], told["provided"], told["provide_error"]["code"]) == (True, False, "kubo-failed")
    assert "nobody is left" in told["provide_error"]["message"]
    assert kubo.pins == {told["cid"]}
    assert (await publisher.unpublish("mine"))["was_pinned"] is True

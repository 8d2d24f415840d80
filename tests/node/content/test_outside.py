"""Fetches from outside the cluster: from a daemon and from gateways, which may lie, hang, redirect or send too much."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content import outside
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.outside import DaemonBlocks, GatewayBlocks, Outside
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture
def serve(far):
    """Starts a server that has the model, and does a fault; gives (server, URL)."""
    with ExitStack() as stack:

        def start(fault="", *, empty=False):
            kubo = FakeKubo()
            kubo.fault = fault
            if not empty:
                kubo.hold(far[0])
            return kubo, stack.enter_context(serving(kubo))

        yield start


@pytest.fixture
def fetched(store, far):
    async def fetch(*sources):
        try:
            return await Fetcher(store).fetch(far[1].cid_bytes, sources)
        finally:
            for source in sources:
                await source.aclose()

    return fetch


async def test_a_model_comes_from_a_daemon(serve, fetched, store, far):
    report = await fetched(DaemonBlocks(serve()[1], None, far[1].cid_bytes))
    assert [model.cid for model in store.models()] == [far[1].cid]
    assert not store.verify(far[1].cid_bytes)
    assert all(name.startswith("kubo http") for name in report.by_source)


@pytest.mark.parametrize("fault", ["", "redirects once"])
async def test_a_model_comes_from_a_gateway_which_learns_a_cid_and_nothing_else(serve, fetched, store, far, fault):
    gateway, url = serve(fault)
    await fetched(GatewayBlocks(url))
    assert [model.cid for model in store.models()] == [far[1].cid]
    told = {name.lower() for headers in gateway.headers for name in headers}
    assert told <= {"host", "accept", "accept-encoding", "connection", "user-agent"}


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("lies", "corrupt-content", "not what its CID says"), ("sends too much", "content-not-found", "more than a block"),
     ("fails", "content-not-found", "HTTP 500"), ("redirects forever", "content-not-found", "more than 3 times"),
     ("redirects to file:///etc/passwd", "content-not-found", "gateway")],
)  # fmt: skip
async def test_what_a_gateway_does_wrong_is_told(serve, fetched, fault, code, said):
    with pytest.raises(AccelError) as failed:
        await fetched(GatewayBlocks(serve(fault)[1]))
    assert failed.value.code == code
    assert said in failed.value.message


async def test_a_gateway_out_there_does_not_lead_into_this_network(monkeypatch, serve, fetched):
    monkeypatch.setattr(outside, "_is_near", lambda host: host == "localhost")
    with pytest.raises(AccelError, match="where no gateway is"):
        await fetched(GatewayBlocks(serve("redirects to http://localhost/x")[1]))


@pytest.mark.parametrize(
    ("host", "near"),
    [("127.0.0.1", True), ("10.1.2.3", True), ("::1", True), ("localhost", True), ("nas", True), ("a.local", True),
     ("8.8.8.8", False), ("dweb.link", False)],
)  # fmt: skip
def test_which_hosts_are_of_this_network(host, near):
    assert outside._is_near(host) is near


async def test_one_that_hangs_does_not_hold_up_the_others(serve, fetched, store, far):
    slow, good = serve("hangs"), serve()
    report = await fetched(GatewayBlocks(slow[1]), DaemonBlocks(good[1], None, far[1].cid_bytes))
    assert [model.cid for model in store.models()] == [far[1].cid]
    assert list(report.by_source) == [f"kubo {good[1]}"]


async def test_liars_and_those_that_lack_cost_their_share_only(serve, fetched, store, far):
    urls = [serve("lies")[1], serve(empty=True)[1], serve("sends too much")[1], serve()[1]]
    report = await fetched(*map(GatewayBlocks, urls))
    assert [model.cid for model in store.models()] == [far[1].cid]
    assert list(report.by_source) == [f"gateway {urls[-1]}"]


async def test_what_nobody_has_is_told(serve, fetched, far):
    with pytest.raises(AccelError) as failed:
        await fetched(DaemonBlocks(serve(empty=True)[1], None, far[1].cid_bytes), GatewayBlocks(serve(empty=True)[1]))
    assert failed.value.code == "content-not-found"


async def test_sources_are_as_configured(far):
    sources = Outside("/ip4/127.0.0.1/tcp/5001", "Bearer secret", ("https://a.example",)).sources(far[1].cid_bytes)
    assert [source.name for source in sources] == ["kubo http://127.0.0.1:5001", "gateway https://a.example"]
    for source in sources:
        await source.aclose()

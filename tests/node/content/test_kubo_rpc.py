"""An IPFS daemon's RPC: against a fake that does as the documentation says, and against a real one where there is one.

The tests that take `daemon` run unchanged against both.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content import kubo as kubo_module
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.kubo import Kubo
from ipfs_accel_node.node.content.kubo_add import add_files
from ipfs_accel_node.node.content.kubo_address import Address, parse_authorization, parse_kubo
from ipfs_accel_node.node.content.kubo_routing import find_providers, provide
from ipfs_accel_node.protocols.errors import AccelError
from kubo_daemons import running

SECRET = "Bearer very-secret"


@pytest.fixture
def fake():
    kubo = FakeKubo()
    with serving(kubo) as url:
        yield SimpleNamespace(kubo=kubo, url=url)


@pytest.fixture(params=["fake", "real"])
def guarded(request, tmp_path):
    """A daemon that lets in who has the secret."""
    with running(request.param, tmp_path, SECRET) as daemon:
        yield daemon


async def pieces(store, cid):
    for piece in store.car(cid):
        yield piece


async def refused(code, call):
    with pytest.raises(AccelError) as error:
        await call
    assert error.value.code == code
    assert error.value.hint
    assert "secret" not in str(error.value)
    return error.value


async def test_it_tells_what_it_is(daemon):
    async with Kubo(parse_kubo(daemon.address)) as kubo:
        assert await kubo.version()
        assert (await kubo.peer_id()).startswith("12D3KooW")


async def test_blocks_come_from_there(daemon, monkeypatch):
    monkeypatch.setattr(kubo_module, "BLOCK_S", 3.0)  # a real one looks around for what it lacks
    async with Kubo(parse_kubo(daemon.address)) as kubo:
        for codec, block in ((RAW, b"some bytes" * 1000), (DAG_PB, b"\x0a\x02\x08\x01")):
            assert await kubo.get_block(daemon.put(block, codec)) == block
        assert await kubo.get_block(make_cid(RAW, b"nobody has this")) is None


async def test_a_model_goes_there_and_is_pinned(daemon, far):
    store, model = far
    async with Kubo(parse_kubo(daemon.address)) as kubo:
        await kubo.import_car(model.cid_bytes, pieces(store, model.cid_bytes))
        await kubo.pin(model.cid_bytes)
        assert model.cid in daemon.pins
        assert await kubo.get_block(model.cid_bytes) == store.read_block(model.cid_bytes)
        assert await kubo.unpin(model.cid_bytes)
        assert not await kubo.unpin(model.cid_bytes)
        assert model.cid not in daemon.pins


NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


def each_call(kubo, store, model):
    """Every call that there is, by the command that it makes."""
    cid = model.cid_bytes
    return {
        "version": kubo.version,
        "id": kubo.peer_id,
        "swarm/connect": lambda: kubo.connect(NOBODY),
        "block/get": lambda: kubo.get_block(cid),
        "dag/import": lambda: kubo.import_car(cid, pieces(store, cid)),
        "dag/export": lambda: kubo.rpc.open("dag/export", {"arg": model.cid}),
        "add": lambda: add_files(kubo, store.contents(cid), model.path, lambda _: None),
        "pin/add": lambda: kubo.pin(cid),
        "pin/rm": lambda: kubo.unpin(cid),
        "routing/findprovs": lambda: find_providers(kubo, cid),
        "routing/provide": lambda: provide(kubo, cid),
    }


async def test_no_call_is_let_in_without_authorization_and_each_with_it(guarded, store, tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    model = store.add(tmp_path / "small")
    await guarded.take(store, model.cid_bytes)
    address = parse_kubo(guarded.address)
    for wrong in (None, "Basic b3RoZXI6c2VjcmV0"):
        async with Kubo(address, wrong) as kubo:
            for command, call in each_call(kubo, store, model).items():
                error = await refused("kubo-refused", call())
                assert command in error.message
    async with Kubo(address, guarded.authorization) as kubo:
        for command, call in each_call(kubo, store, model).items():
            try:
                answer = await call()
            except AccelError as error:
                assert command in ("swarm/connect", "routing/provide"), error  # it is let in, and alone
                assert error.code == "kubo-failed"
            else:
                if command == "dag/export":
                    await answer.aclose()


async def test_authorization_is_shown_to_the_daemon_alone(fake, caplog):
    caplog.set_level("DEBUG")
    fake.kubo.authorization = SECRET
    async with Kubo(parse_kubo(fake.url)) as kubo:
        error = await refused("kubo-refused", kubo.version())
        assert "IPFS_ACCEL_KUBO_AUTH" in error.hint
    async with Kubo(parse_kubo(fake.url), SECRET) as kubo:
        assert await kubo.version()
    async with Kubo(parse_kubo(fake.url), "Basic other-secret") as kubo:
        await refused("kubo-refused", kubo.version())
    assert "secret" not in caplog.text


async def test_what_is_no_kubo_or_not_there(fake, tmp_path):
    fake.kubo.fault = "is another program"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        await refused("kubo-failed", kubo.version())
    async with Kubo(Address("http://127.0.0.1:1")) as kubo:
        await refused("kubo-unreachable", kubo.version())
    async with Kubo(parse_kubo(f"/unix{tmp_path}/none")) as kubo:
        await refused("kubo-unreachable", kubo.version())


async def test_it_is_not_waited_for_without_end(fake, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.content.kubo_rpc.ANSWER_S", 0.2)
    fake.kubo.fault = "hangs"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        await refused("kubo-unreachable", kubo.version())


async def test_an_answer_is_bounded(fake):
    cid = fake.kubo.put(b"small")
    fake.kubo.fault = "sends too much"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        error = await refused("kubo-failed", kubo.get_block(cid))
    assert "more than" in error.message


async def test_an_error_has_the_daemons_own_words(fake):
    cid = fake.kubo.put(b"small")
    fake.kubo.fault = "fails"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        error = await refused("kubo-failed", kubo.get_block(cid))
    assert "something is broken" in error.message


async def test_an_answer_that_breaks_off_is_no_success(fake, far):
    store, model = far
    fake.kubo.fault = "breaks off"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        await refused("kubo-failed", kubo.import_car(model.cid_bytes, pieces(store, model.cid_bytes)))
        await refused("kubo-failed", kubo.pin(model.cid_bytes))


@pytest.mark.parametrize(
    ("text", "url", "socket"),
    [("/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001", None),
     ("/ip6/::1/tcp/5001/http", "http://[::1]:5001", None),
     ("/dns/ipfs.example/tcp/443/https", "https://ipfs.example:443", None),
     ("/dns4/ipfs.example/tcp/443/tls/http", "https://ipfs.example:443", None),
     ("http://localhost:5001/", "http://localhost:5001", None),
     ("/unix/run/ipfs.sock", "http://kubo", "/run/ipfs.sock"),
     ("unix:///run/ipfs.sock", "http://kubo", "/run/ipfs.sock")],
)  # fmt: skip
def test_an_address_is_read(text, url, socket):
    assert parse_kubo(text) == Address(url, socket)


@pytest.mark.parametrize(
    "text",
    ["", "localhost:5001", "ftp://host", "http://", "http://user:secret@host", "/ip4/127.0.0.1/udp/5001", "/ip4/x",
     "http://host?x=1", "http://host:99999", "/ip4/127.0.0.1/tcp/99999", "http://a b"],
)  # fmt: skip
def test_an_address_that_is_none(text):
    with pytest.raises(ValueError, match=r"address|Port|port") as error:
        parse_kubo(text)
    assert "secret" not in str(error.value)


def test_an_authorization_is_not_told_when_it_is_none():
    assert parse_authorization(SECRET) == SECRET
    for text in ("secret", "Bearer ", "Bearer secret\r\nX: y", "Bearer " + "x" * 5000):
        with pytest.raises(ValueError, match="Bearer TOKEN") as error:
            parse_authorization(text)
        assert "secret" not in str(error.value)

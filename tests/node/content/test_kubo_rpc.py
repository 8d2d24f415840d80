"""An IPFS daemon's RPC: against a fake that does as the documentation says, and against a real one where there is one.

The tests that take `daemon` run unchanged against both.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, format_cid, make_cid
from ipfs_accel_node.node.content.kubo import Kubo
from ipfs_accel_node.node.content.kubo_address import Address, parse_authorization, parse_kubo
from ipfs_accel_node.protocols.errors import AccelError

SECRET = "Bearer very-secret"


@contextmanager
def real_daemon(folder):
    """A daemon with a repository of its own that talks to nobody."""
    program = shutil.which("ipfs")
    environment = {**os.environ, "IPFS_PATH": str(folder / "ipfs")}

    def ipfs(*arguments):
        subprocess.run([program, *arguments], env=environment, check=True, capture_output=True, timeout=60)

    ipfs("init", "--profile", "test")
    for key in ("API", "Gateway"):
        ipfs("config", f"Addresses.{key}", "/ip4/127.0.0.1/tcp/0")
    ipfs("config", "--json", "Addresses.Swarm", "[]")
    with subprocess.Popen([program, "daemon", "--offline"], env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            api, deadline = folder / "ipfs" / "api", time.monotonic() + 60
            while not api.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            yield api.read_text().strip()
        finally:
            process.terminate()


@pytest.fixture(params=["fake", "real"])
def daemon(request, tmp_path):
    """The address of a daemon."""
    if request.param == "fake":
        with serving(FakeKubo()) as url:
            yield url
    elif shutil.which("ipfs") is None:
        pytest.skip("no `ipfs` program on the path")
    else:
        with real_daemon(tmp_path) as address:
            yield address


@pytest.fixture
def fake():
    kubo = FakeKubo()
    with serving(kubo) as url:
        yield SimpleNamespace(kubo=kubo, url=url)


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
    async with Kubo(parse_kubo(daemon)) as kubo:
        assert await kubo.version()
        assert (await kubo.peer_id()).startswith("12D3KooW")


async def test_blocks_go_there_and_back(daemon):
    raw, node = b"some bytes" * 1000, b"\x0a\x02\x08\x01"
    async with Kubo(parse_kubo(daemon)) as kubo:
        for codec, block in ((RAW, raw), (DAG_PB, node)):
            cid = make_cid(codec, block)
            await kubo.put_block(cid, block)
            assert await kubo.get_block(cid) == block
            assert await kubo.block_size(cid) == len(block)
        assert await kubo.get_block(make_cid(RAW, b"nobody has this")) is None
        await refused("kubo-failed", kubo.block_size(make_cid(RAW, b"nobody has this")))


async def test_a_model_goes_there_and_is_pinned(daemon, far):
    store, model = far
    async with Kubo(parse_kubo(daemon)) as kubo:
        await kubo.import_car(model.cid_bytes, pieces(store, model.cid_bytes))
        await kubo.pin(model.cid_bytes)
        assert model.cid_bytes in await kubo.pins()
        assert await kubo.get_block(model.cid_bytes) == store.read_block(model.cid_bytes)
        assert await kubo.unpin(model.cid_bytes)
        assert not await kubo.unpin(model.cid_bytes)
        assert model.cid_bytes not in await kubo.pins()


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
    monkeypatch.setattr("ipfs_accel_node.node.content.kubo.ANSWER_S", 0.2)
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


async def test_a_block_that_became_another_is_told(fake):
    fake.kubo.fault = "lies"
    async with Kubo(parse_kubo(fake.url)) as kubo:
        error = await refused("kubo-failed", kubo.put_block(make_cid(RAW, b"this"), b"this"))
    assert format_cid(make_cid(RAW, b"this")) in error.message


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

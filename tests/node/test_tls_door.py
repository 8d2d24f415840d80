"""The parts of the TLS door, each alone: its keys, who gives way, what the log is told, and a client that sends."""

from __future__ import annotations

import logging
import select
import socket
import ssl
import stat
import threading
import time
from contextlib import suppress

import anyio
import pytest
import trio
from ipfs_accel_node import AccelError, AsyncClient, Client
from ipfs_accel_node.node import client_tls
from ipfs_accel_node.node.api import tls
from ipfs_accel_node.node.client_keys import ClientKeys
from ipfs_accel_node.node.config import Paths
from ipfs_accel_node.protocols.client_door import ClientToken


def test_keys_are_made_once_and_are_this_users_alone(tmp_path):
    paths = Paths(tmp_path)
    keys = ClientKeys(paths)
    for file in (paths.client_secret, paths.client_certificate):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = ClientKeys(paths)
    assert again.token == keys.token
    keys.renew()
    assert keys.token.secret != again.token.secret
    assert keys.token.fingerprint == again.token.fingerprint
    assert ClientKeys(paths).token == keys.token


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 700, b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
@pytest.mark.parametrize("file", ["client.secret", "client-door.pem"])
def test_a_damaged_file_is_named(tmp_path, file, damage):
    ClientKeys(Paths(tmp_path))
    (tmp_path / file).write_bytes(damage)
    with pytest.raises(AccelError, match=file) as refused:
        ClientKeys(Paths(tmp_path))
    assert refused.value.code == "bad-config"


async def test_the_oldest_of_whoever_has_most_gives_way(monkeypatch, autojump_clock):
    monkeypatch.setattr(tls, "_MAX_OPENINGS", 4)
    openings, ended = tls._Openings(), []

    async def hold(name, host, task_status):
        with openings.one_more(host):
            task_status.started()
            await trio.sleep(1)
            ended.append((name, "by itself"))
        ended.append((name, trio.current_time() - began))

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        for name, host in (("a1", "a"), ("b1", "b"), ("b2", "b"), ("a2", "a"), ("b3", "b"), ("b4", "b")):
            await nursery.start(hold, name, host)
    assert [name for name, when in ended if when == 0] == ["a1", "b1"]
    assert sorted(name for name, when in ended if when == "by itself") == ["a2", "b2", "b3", "b4"]


async def test_an_opening_has_a_deadline_and_all_can_be_dropped(autojump_clock):
    openings, began = tls._Openings(), trio.current_time()
    with openings.one_more("a"):
        await trio.sleep_forever()
    assert trio.current_time() - began == tls._OPENING_DEADLINE_S
    with openings.one_more("a"):
        openings.drop_all()
        await trio.sleep_forever()
    assert trio.current_time() - began == tls._OPENING_DEADLINE_S


async def test_a_crowd_of_failures_is_counted_in_the_log(caplog, autojump_clock):
    failures = tls._Failures()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            for _ in range(1000):
                failures.tell("10.0.0.9", "why")
            await trio.sleep(1)
        failures.tell("10.0.0.9", "why")
    assert caplog.messages.count("a client from 10.0.0.9 was not let in: why") == 16
    assert caplog.messages.count("995 more clients were not let in") == 3


class Impostor:
    """Speaks TLS with a certificate of its own and keeps what it is told; it never answers."""

    def __init__(self, folder) -> None:
        self.told = b""
        self.ended = threading.Event()
        self.keys = ClientKeys(Paths(folder))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self._listener:
            connection, _ = self._listener.accept()
        with connection, suppress(OSError), self.keys.tls_context().wrap_socket(connection, server_side=True) as stream:
            while data := stream.recv(4096):
                self.told += data
        self.ended.set()


@pytest.fixture
def impostor(tmp_path):
    return Impostor(tmp_path)


@pytest.mark.parametrize("kind", ["sync", "asyncio", "trio"])
def test_who_shows_another_certificate_is_told_nothing(impostor, kind):
    token = ClientToken(impostor.keys.token.secret, bytes(32)).encode()
    with pytest.raises(AccelError, match="not the one of this token") as refused:
        if kind == "sync":
            Client(impostor.address, token=token)
        else:
            anyio.run(enter, AsyncClient(impostor.address, token=token), backend=kind)
    assert refused.value.code == "wrong-certificate"
    assert "Nothing was sent" in refused.value.hint
    assert impostor.ended.wait(10)
    assert impostor.told == b""


async def enter(client):
    async with client:
        pass


@pytest.mark.parametrize("kind", ["sync", "asyncio", "trio"])
def test_a_door_that_never_answers_is_given_up(impostor, kind, monkeypatch):
    monkeypatch.setattr(client_tls, "OPENING_DEADLINE_S", 1.0)
    with pytest.raises(AccelError, match="no answer within 1 s") as refused:
        if kind == "sync":
            Client(impostor.address, token=impostor.keys.token.encode())
        else:
            anyio.run(enter, AsyncClient(impostor.address, token=impostor.keys.token.encode()), backend=kind)
    assert refused.value.code == "not-running"
    assert impostor.ended.wait(10)
    assert impostor.keys.token.secret in impostor.told


@pytest.fixture
def pair(tmp_path):
    """A client's socket, open and not blocking, and the node's end of the same TLS connection."""
    with socket.create_server(("127.0.0.1", 0)) as here:
        plain = socket.create_connection(here.getsockname())
        there, _ = here.accept()
    context, opened = ClientKeys(Paths(tmp_path)).tls_context(), []
    thread = threading.Thread(target=lambda: opened.append(context.wrap_socket(there, server_side=True)))
    thread.start()
    stream = client_tls.TlsSocket(plain)
    stream.shake_hands(time.monotonic() + 10)
    thread.join()
    plain.setblocking(False)
    yield stream, opened[0]
    stream.close()
    opened[0].close()


def test_what_the_system_does_not_take_at_once_is_sent_whole_later(pair):
    stream, node = pair
    data, got, blocked = bytes(range(256)) * 40_000, bytearray(), 0
    left = memoryview(data)
    while left:
        try:
            left = left[stream.send(left) :]
        except BlockingIOError:
            blocked += 1
            got += node.recv(1 << 16)
    while len(got) < len(data):
        got += node.recv(1 << 16)
    assert blocked > 0
    assert got == data


def test_all_that_came_is_taken_and_nothing_is_no_end(pair):
    stream, node = pair
    with pytest.raises(BlockingIOError):
        stream.recv(1)
    node.sendall(b"a" * 10_000)
    got, poll = b"", select.poll()
    poll.register(stream, select.POLLIN)
    while len(got) < 10_000:
        assert poll.poll(10_000)
        with suppress(BlockingIOError):
            got += stream.recv(1)
    assert got == b"a" * 10_000
    node.close()
    assert poll.poll(10_000)
    assert stream.recv(1) == b""


def test_a_broken_record_ends_the_connection(pair):
    stream, node = pair
    raw = socket.socket(fileno=node.detach())
    with raw:
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            while True:
                with suppress(BlockingIOError):
                    stream.recv(1)

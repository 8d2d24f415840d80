"""Both ends of bulk connections over real TLS: who is let in, who is not, and what one that does wrong costs."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import contextmanager

import pytest
from ipfs_accel_node.node.bulk import serving
from ipfs_accel_node.node.bulk.getting import BulkConnection
from ipfs_accel_node.node.bulk.keys import BulkKeys, client_context
from ipfs_accel_node.node.bulk.serving import BulkServer
from ipfs_accel_node.node.bulk.tickets import Grant
from ipfs_accel_node.node.content.orders import Order, Outcome
from ipfs_accel_node.node.content.places import Places
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.blocks import block_header, blocks_refused
from ipfs_accel_node.protocols.bulk import OpeningReader, Ticket, welcome
from ipfs_accel_node.protocols.errors import AccelError
from striking import wait_until

MIB = 1 << 20
DEADLINE_S = 30.0


class Served:
    """A store with a model, its server, and what it takes to be let in."""

    def __init__(self, folder):
        (folder / "model" / "void").mkdir(parents=True)
        (folder / "model" / "weights").write_bytes(random.Random(1).randbytes(5 * MIB + 7))
        (folder / "model" / "zeros").write_bytes(bytes(4 * MIB))
        self.store = ModelStore(folder / "content")
        self.model = self.store.add(folder / "model")
        self.keys = BulkKeys()
        self.server = BulkServer(folder / "content", self.keys)
        self.port = self.server.listen("127.0.0.1", 0)

    def ticket(self, keys, peer_id="peer"):
        secret = self.server.issue(Grant(peer_id, self.model.cid_bytes, keys.public))
        return Ticket(secret, self.keys.fingerprint, (("127.0.0.1", self.port),))

    def places(self, folder):
        places = Places(self.store._contents[self.model.cid_bytes], folder)
        folder.mkdir()
        places.prepare()
        return places


@pytest.fixture
def served(tmp_path):
    return Served(tmp_path)


@pytest.fixture
def keys():
    return BulkKeys()


def orders_of(places):
    return [places.order(leaf) for leaf, there in enumerate(places.have) if not there]


def get_all(ticket, keys, places):
    """What became of each order, in turn."""
    told = []
    connection = BulkConnection.open(ticket, keys)
    try:
        connection.get(orders_of(places), lambda outcome, size: told.append((outcome, size)))
    finally:
        connection.close()
    return told


def refused(ticket, keys):
    with pytest.raises(AccelError) as error:
        BulkConnection.open(ticket, keys).close()
    return error.value.code


def test_a_model_is_written_where_it_belongs(served, keys, tmp_path):
    places = served.places(tmp_path / "partial")
    told = get_all(served.ticket(keys), keys, places)
    assert {outcome for outcome, _ in told} == {Outcome.KEPT}
    for name in ("weights", "zeros"):
        assert (tmp_path / "partial" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert (tmp_path / "partial" / "zeros").stat().st_blocks == 0, "zeros in many places stay holes"


def test_blocks_that_are_not_there_or_damaged_are_missing(served, keys, tmp_path):
    places = served.places(tmp_path / "partial")
    path = served.model.path / "weights"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    told = get_all(served.ticket(keys), keys, places)
    assert [outcome for outcome, _ in told].count(Outcome.MISSING) == 1


def test_a_ticket_opens_one_connection(served, keys):
    ticket = served.ticket(keys)
    BulkConnection.open(ticket, keys).close()
    assert refused(ticket, keys) == "permission-denied"


def test_a_forged_ticket_opens_nothing(served, keys):
    ticket = served.ticket(keys)
    assert refused(Ticket(bytes(32), ticket.fingerprint, ticket.addresses), keys) == "permission-denied"


def test_a_stolen_ticket_is_of_no_use_to_the_thief(served, keys):
    assert refused(served.ticket(keys), BulkKeys()) == "permission-denied"


def test_an_old_ticket_opens_nothing(served, keys, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.bulk.tickets.LIFETIME_S", 0.0)
    assert refused(served.ticket(keys), keys) == "permission-denied"


def test_nothing_is_sent_to_another_certificate(served, keys):
    ticket = served.ticket(keys)
    heard = []
    with somebody(lambda stream: heard.append(stream.recv(100))) as (_, address):
        assert refused(Ticket(ticket.secret, ticket.fingerprint, (address,)), keys) == "wrong-certificate"
        wait_until(lambda: heard, DEADLINE_S)
    assert heard == [b""]


def test_the_next_address_is_tried(served, keys):
    ticket = served.ticket(keys)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        addresses = (closed.getsockname(), *ticket.addresses)
        BulkConnection.open(Ticket(ticket.secret, ticket.fingerprint, addresses), keys).close()


def test_a_ticket_is_for_a_model_that_is_here(served, keys):
    with pytest.raises(AccelError) as error:
        served.server.issue(Grant("peer", b"\x01\x70\x12\x20" + bytes(32), keys.public))
    assert error.value.code == "content-not-found"


def test_one_peer_has_a_few_connections_and_another_has_its_own(served, keys):
    open_ones = [BulkConnection.open(served.ticket(keys), keys) for _ in range(serving.MAX_OF_ONE)]
    assert refused(served.ticket(keys), keys) == "busy"
    BulkConnection.open(served.ticket(keys, "another"), keys).close()
    for connection in open_ones:
        connection.close()
    wait_until(lambda: not served.server._serving, DEADLINE_S)
    BulkConnection.open(served.ticket(keys), keys).close()


def test_a_crowd_that_only_connects_keeps_nobody_out(served, keys, tmp_path):
    crowd = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(serving.MAX_OPENINGS * 2)]
    try:
        get_all(served.ticket(keys), keys, served.places(tmp_path / "partial"))
        assert len(served.server._openings) <= serving.MAX_OPENINGS
    finally:
        for each in crowd:
            each.close()
    wait_until(lambda: not served.server._openings, DEADLINE_S)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 5000])
def test_one_that_speaks_something_else_is_dropped(served, said):
    with socket.create_connection(("127.0.0.1", served.port)) as plain, client_context().wrap_socket(plain) as tls:
        tls.settimeout(DEADLINE_S)
        tls.sendall(said)
        try:
            while tls.recv(4096):
                pass
        except OSError:
            pass
    wait_until(lambda: not served.server._openings, DEADLINE_S)


def test_one_that_asks_and_does_not_read_is_dropped(served, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "SILENCE_S", 0.2)
    connection = BulkConnection.open(served.ticket(keys), keys)
    cids = [order.cid for order in orders_of(served.places(tmp_path / "partial"))] * 10
    connection._stream.sendall(connection._asker.want(cids))
    wait_until(lambda: not served.server._serving, DEADLINE_S)
    connection.close()


def test_closing_ends_what_waits(served, keys, tmp_path):
    """As when the node cancels: the connection is closed in the middle of a batch, from another thread."""
    order = orders_of(served.places(tmp_path / "partial"))[0]
    ended = []
    with somebody(lambda stream: stream.recv(1000) and stream.recv(1), welcomes=True) as (other, address):
        connection = BulkConnection.open(Ticket(bytes(32), other.fingerprint, (address,)), keys)

        def get():
            try:
                connection.get([order], lambda *_: None)
            except AccelError as error:
                ended.append(error.code)

        thread = threading.Thread(target=get)
        thread.start()
        connection.close()
        thread.join(DEADLINE_S)
    assert ended == ["peer-lost"]


def lies(stream, order):
    stream.sendall(block_header(order.cid, order.length) + bytes(order.length))


def answers_another(stream, order):
    stream.sendall(block_header(b"\x01\x55\x12\x20" + bytes(32), 3) + b"abc")


def sends_too_much(stream, order):
    stream.sendall(block_header(order.cid, 3 * MIB))


def floods(stream, order):
    stream.sendall(bytes(200_000))


def leaves(stream, order):
    stream.sendall(block_header(order.cid, order.length) + b"a little")


def refuses(stream, order):
    stream.sendall(blocks_refused("disk-full", "as if it were ours"))


def stalls(stream, order):
    stream.sendall(block_header(order.cid, order.length) + b"a little")
    stream.recv(1)


@pytest.mark.parametrize(
    ("does", "code"),
    [
        (lies, None),
        (answers_another, "protocol-error"),
        (sends_too_much, "protocol-error"),
        (floods, "protocol-error"),
        (leaves, "peer-lost"),
        (refuses, "peer-lost"),
        (stalls, "peer-silent"),
    ],
)
def test_a_peer_that_does_wrong(served, keys, tmp_path, monkeypatch, does, code):
    monkeypatch.setattr("ipfs_accel_node.node.bulk.getting.SILENCE_S", 0.3)
    order = next(order for order in orders_of(served.places(tmp_path / "partial")) if "weights" in order.places[0][0])
    told = []

    def answer(stream):
        stream.recv(1000)
        does(stream, order)

    with somebody(answer, welcomes=True) as (other, address):
        connection = BulkConnection.open(Ticket(bytes(32), other.fingerprint, (address,)), keys)
        try:
            connection.get([order], lambda outcome, _: told.append(outcome))
            assert code is None
        except AccelError as error:
            assert error.code == code
        finally:
            connection.close()
    assert told == ([Outcome.WRONG] if code is None else [])
    assert not (tmp_path / "partial" / "weights").stat().st_blocks, "nothing unsound is written"


def test_a_block_of_another_length_than_was_said_ends_everything(served, keys, tmp_path):
    order = orders_of(served.places(tmp_path / "partial"))[0]
    wrong = Order(order.cid, order.length - 1, b"", b"", order.places)
    connection = BulkConnection.open(served.ticket(keys), keys)
    with pytest.raises(AccelError) as error:
        connection.get([wrong], lambda *_: None)
    assert error.value.code == "hostile-content"
    connection.close()


@contextmanager
def somebody(answer, *, welcomes=False):
    """Somebody else's bulk process, which takes one connection and then does as `answer`: its keys, its address."""
    keys, listener = BulkKeys(), socket.create_server(("127.0.0.1", 0))

    def serve():
        plain, _ = listener.accept()
        try:
            with keys.server_context.wrap_socket(plain, server_side=True) as stream:
                stream.settimeout(DEADLINE_S)
                if welcomes:
                    OpeningReader().receive(stream.recv(4096))
                    stream.sendall(welcome())
                answer(stream)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield keys, listener.getsockname()
    finally:
        thread.join(DEADLINE_S)
        listener.close()
        assert not thread.is_alive()

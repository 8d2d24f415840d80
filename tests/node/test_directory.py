"""What a node knows of its peers, with a clock of the test's own; and the address book on disk."""

from __future__ import annotations

import json

import pytest
from ipfs_accel_node.node.mesh.address_book import AddressBook
from ipfs_accel_node.node.mesh.directory import EXPIRY_S, FORGET_S, MAX_PEERS, Directory
from ipfs_accel_node.protocols.advert import Advert, ModelInfo


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(clock):
    return Directory(clock)


def advert(incarnation=1, counter=1, name="peer"):
    return Advert(incarnation, counter, name, "ready", ("/addr",), models=(ModelInfo(b"cid1", "m", 1, "t"),))


def test_only_the_newest_advert_counts(directory):
    assert directory.advertised("p", advert(2, 5, "new"))
    for older in (advert(2, 5), advert(2, 4), advert(1, 99)):
        assert not directory.advertised("p", older)
    assert directory.get("p").name == "new"
    assert directory.advertised("p", advert(3, 0, "restarted"))
    assert directory.get("p").name == "restarted"


def test_an_advert_expires_by_our_own_clock(directory, clock):
    directory.linked("p", "peer", ())
    directory.advertised("p", advert())
    clock.now += EXPIRY_S - 1
    (peer,) = directory.peers()
    assert (peer.state, len(peer.models)) == ("ready", 1)
    clock.now += 2
    (peer,) = directory.peers()
    assert (peer.state, peer.models, peer.linked) == ("unknown", (), True)


def test_a_peer_without_a_link_offers_nothing_and_is_forgotten_in_the_end(directory, clock):
    directory.linked("p", "peer", ("/a",))
    directory.advertised("p", advert())
    directory.unlinked("p")
    (peer,) = directory.peers()
    assert (peer.linked, peer.models, peer.name) == (False, (), "peer")
    clock.now += FORGET_S + 1
    assert list(directory.peers()) == []
    assert directory.get("p") is None


def test_a_slow_answer_says_less_of_the_path_than_a_quick_one(directory):
    directory.round_trip("p", 0.010)
    directory.round_trip("p", 0.110)
    assert directory.get("p").rtt_s == pytest.approx(0.020)
    directory.round_trip("p", 0.001)
    assert directory.get("p").rtt_s < 0.010


def test_bandwidth_is_learned_from_what_is_large_enough(directory):
    directory.linked("p", "peer", ())
    directory.moved("p", 1000, 0.001)
    assert directory.get("p").bandwidth is None
    directory.moved("p", 10 << 20, 0.5)
    assert directory.get("p").bandwidth == pytest.approx((10 << 20) / 0.5)
    directory.moved("nobody", 10 << 20, 0.5)
    assert directory.get("nobody") is None


def test_strangers_cannot_fill_it(directory):
    for number in range(MAX_PEERS + 10):
        directory.advertised(f"p{number}", advert())
    assert len(list(directory.peers())) == MAX_PEERS


def test_addresses_are_kept_over_a_restart(tmp_path):
    book = AddressBook(tmp_path / "book.json")
    book.put("peer", ["/ip4/1.2.3.4/tcp/1/p2p/peer", "/ip4/1.2.3.4/tcp/1/p2p/somebody-else"])
    assert AddressBook(tmp_path / "book.json").all() == {"peer": ["/ip4/1.2.3.4/tcp/1/p2p/peer"]}
    book.forget("peer")
    assert AddressBook(tmp_path / "book.json").all() == {}


def test_the_book_is_bounded_and_forgets_the_oldest(tmp_path):
    book = AddressBook(tmp_path / "book.json")
    for number in range(300):
        book.put(f"p{number}", [f"/ip4/1.2.3.4/tcp/{port}/p2p/p{number}" for port in range(20)])
    kept = AddressBook(tmp_path / "book.json").all()
    assert len(kept) == 256
    assert "p0" not in kept
    assert {len(addresses) for addresses in kept.values()} == {8}


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 5}', json.dumps({"a": None})])
def test_a_damaged_book_is_begun_anew(tmp_path, content):
    (tmp_path / "book.json").write_text(content)
    assert AddressBook(tmp_path / "book.json").all() == {}

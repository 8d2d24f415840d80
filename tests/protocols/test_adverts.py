"""Adverts, their sealing, and the join token."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.protocols import advert as adverts
from ipfs_accel_node.protocols.advert import Advert, BackendState, ModelInfo, Offer, Speed
from ipfs_accel_node.protocols.errors import AccelError, ProtocolError
from ipfs_accel_node.protocols.sealing import (
    OVERHEAD,
    cluster_id,
    decode_token,
    encode_token,
    open_sealed,
    peer_id_of,
    seal,
)

KEY, SEED = b"k" * 32, b"s" * 32
CIDS = st.binary(min_size=36, max_size=36)
NAMES = st.text(max_size=20)
SECONDS = st.integers(0, 10**9).map(lambda micro: micro / 1e6)
SPEEDS = st.builds(
    Speed, SECONDS, st.integers(0, 10**9).map(lambda pico: pico / 1e12), st.just("bytes"),
    st.integers(0, 2000).map(lambda n: n / 1e3), st.integers(0, 1000), SECONDS,
)  # fmt: skip


@st.composite
def any_advert(draw):
    models = draw(st.lists(st.builds(ModelInfo, CIDS, NAMES, st.integers(0, 2**50), NAMES), max_size=5,
                           unique_by=lambda model: model.cid))  # fmt: skip
    backends = draw(
        st.lists(st.builds(BackendState, NAMES, NAMES, NAMES, st.integers(0, 99), SECONDS), max_size=3,
                 unique_by=lambda backend: backend.name)
    )  # fmt: skip
    offers = [
        Offer(model.cid, backend.name, draw(NAMES), "f32", draw(st.booleans()), draw(SECONDS), draw(st.none() | SPEEDS))
        for model in models
        for backend in backends
    ]
    return Advert(
        draw(st.integers(0, 2**63)), draw(st.integers(0, 2**31)), draw(NAMES), "ready", ("/ip4/1.2.3.4/tcp/1",),
        tuple(backends), tuple(models), tuple(offers), draw(st.booleans()),
    )  # fmt: skip


@given(any_advert())
def test_adverts_come_out_as_they_went_in(advert):
    assert adverts.decode(adverts.encode(advert, 1 << 20)) == advert


def test_the_wire_never_changes():
    advert = Advert(1, 2, "n", "ready", ("a",), (BackendState("cpu", "d", "ready", 0, 0.5),),
                    (ModelInfo(b"CID!", "m", 9, "t"),),
                    (Offer(b"CID!", "cpu", "t", "f32", True, 1.5, Speed(0.004, 2e-6, "bytes", 0.1, 7)),))  # fmt: skip
    assert adverts.encode(advert).hex() == (
        "9a010102a16ea5726561647991a1619195a3637075a164a5726561647900ce0007a1209194c40443494421a16d"
        "09a17491970000a174a3663332c3ce0016e36095cd0fa0ce001e8480a562797465736407c2"
    )


def test_what_an_output_takes_stands_at_the_end_where_there_is_any():
    speed = Speed(0.004, 2e-6, "bytes", 0.1, 7, per_output_s=0.025)
    advert = Advert(1, 2, "n", "ready", ("a",), (BackendState("cpu", "d", "ready", 0, 0.5),),
                    (ModelInfo(b"CID!", "m", 9, "t"),),
                    (Offer(b"CID!", "cpu", "t", "f32", True, 1.5, speed),))  # fmt: skip
    assert adverts.encode(advert).hex().endswith("96cd0fa0ce001e8480a562797465736407cd61a8c2")
    assert adverts.decode(adverts.encode(advert)) == advert


def test_what_does_not_fit_is_left_out_from_the_end_and_said():
    models = tuple(ModelInfo(bytes([number]) * 36, f"model-{number}", 1, "t") for number in range(200))
    offers = tuple(Offer(model.cid, "cpu", "t", "f32", True, 0.0, None) for model in models)
    advert = Advert(1, 1, "n", "ready", (), (BackendState("cpu", "", "ready", 0, 0.0),), models, offers)
    packed = adverts.encode(advert)
    kept = adverts.decode(packed)
    assert len(packed) <= adverts.MAX_SIZE
    assert kept.more
    assert kept.models == models[: len(kept.models)]
    assert len(kept.models) > 30
    assert {offer.cid for offer in kept.offers} == {model.cid for model in kept.models}
    assert len(seal(packed, cluster_key=KEY, signing_key=SEED)) <= 4096


@given(any_advert(), st.data())
def test_mutated_adverts_are_adverts_or_a_protocol_error(advert, data):
    packed = bytearray(adverts.encode(advert, 1 << 20))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(adverts.decode(bytes(packed)), Advert)
    except ProtocolError as error:
        assert error.message


@given(st.binary(max_size=100))
def test_any_bytes_are_no_advert(data):
    with pytest.raises(ProtocolError):
        adverts.decode(data)


def test_sealing_keeps_strangers_out_and_names_the_writer():
    sealed = seal(b"body", cluster_key=KEY, signing_key=SEED)
    public, body = open_sealed(sealed, cluster_key=KEY)
    assert (body, len(sealed)) == (b"body", 4 + OVERHEAD)
    assert peer_id_of(public).startswith("12D3KooW")
    with pytest.raises(ProtocolError):
        open_sealed(sealed, cluster_key=b"x" * 32)
    for place in range(len(sealed)):
        tampered = bytearray(sealed)
        tampered[place] ^= 1
        with pytest.raises(ProtocolError):
            open_sealed(bytes(tampered), cluster_key=KEY)
    with pytest.raises(ProtocolError):
        open_sealed(sealed[:100], cluster_key=KEY)


def test_the_peer_id_is_libp2ps():
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.id import ID

    public = create_new_key_pair(SEED).public_key
    assert peer_id_of(public.to_bytes()) == str(ID.from_pubkey(public))


@given(st.binary(min_size=32, max_size=32), st.lists(st.text(max_size=30), max_size=8))
def test_tokens_come_out_as_they_went_in(key, addresses):
    assert decode_token("  " + encode_token(key, addresses) + "\n") == (key, addresses)


@given(st.data())
def test_a_damaged_token_is_told(data):
    token = encode_token(KEY, ["/ip4/1.2.3.4/tcp/4011/p2p/x"])
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_"))
    damaged = token[:place] + other + token[place + 1 :]
    if damaged != token:
        with pytest.raises(AccelError, match="bad-token"):
            decode_token(damaged)
    with pytest.raises(AccelError, match="bad-token"):
        decode_token(token[:place])


def test_the_cluster_id_tells_nothing_of_the_key():
    assert cluster_id(KEY) != cluster_id(b"x" * 32)
    assert KEY.hex()[:16] not in cluster_id(KEY)
    assert len(cluster_id(KEY)) == 16


def test_newer_is_known_by_incarnation_then_counter():
    first = Advert(1, 9, "n", "ready")
    assert dataclasses.replace(first, incarnation=2, counter=0).age_key > first.age_key

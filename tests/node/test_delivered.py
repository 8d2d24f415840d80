"""What a caller gets is each token once and in order, whatever attempts gave; what is over is not done again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.client_text import Pieces
from ipfs_accel_node.node.delivered import Delivered
from ipfs_accel_node.node.finished_jobs import KEPT_S, LARGEST, MOST_BYTES, MOST_JOBS, FinishedJobs, digest
from ipfs_accel_node.protocols.errors import AccelError
from ipfs_accel_node.protocols.inference_session import ChunkReceived
from ipfs_accel_node.protocols.resumption import MOST_CHARACTERS, MOST_TOKENS

CUTS = st.lists(st.integers(1, 4), max_size=12)


def chunks_of(sizes, begin=0):
    """(offset, ids, text) in pieces of those sizes; token n has the text `n `."""
    for size in sizes:
        ids = list(range(begin, begin + size))
        yield begin, ids, "".join(f"{each} " for each in ids)
        begin += size


@given(CUTS, CUTS, st.data())
def test_attempts_that_go_on_make_one_output(first, second, data):
    have, out = Delivered(), []
    broken_off = data.draw(st.integers(0, len(first)))
    attempts = [*list(chunks_of(first))[:broken_off]]
    attempts += chunks_of(second, begin=sum(first[:broken_off]))
    for chunk in attempts:
        if have.take(*chunk):
            out.append(chunk[2])
    count = sum(first[:broken_off]) + sum(second)
    assert have.token_ids == list(range(count))
    assert "".join(out) == "".join(f"{each} " for each in range(count))
    assert have.characters == len("".join(out))


@given(CUTS, st.data())
def test_what_comes_again_is_dropped_and_a_gap_is_an_error(sizes, data):
    have, chunks = Delivered(), list(chunks_of(sizes))
    for chunk in chunks:
        assert have.take(*chunk)
    for chunk in data.draw(st.permutations(chunks)):
        assert not have.take(*chunk)
    before = list(have.token_ids)
    with pytest.raises(AccelError, match="protocol-error"):
        have.take(len(before) + 1, [7], "x")
    if before:
        with pytest.raises(AccelError, match="protocol-error"):
            have.take(len(before) - 1, [7, 8], "x")
    assert have.token_ids == before


def test_text_that_was_held_back_comes_without_a_token():
    have = Delivered()
    assert have.take(0, [5], "a")
    assert have.take(1, [], "bc")
    assert (have.token_ids, have.characters) == ([5], 3)
    assert not have.take(1, [], "")


@given(CUTS, st.data())
def test_the_result_fills_in_what_did_not_come_in_pieces(sizes, data):
    pieces, out = Pieces(), []
    chunks = list(chunks_of(sizes))
    for chunk in chunks[: data.draw(st.integers(0, len(chunks)))]:
        pieces.take(ChunkReceived(1, *chunk))
        if data.draw(st.booleans()):
            out.append(pieces.read())
    whole = "".join(text for *_, text in chunks)
    pieces.settle({"generated_text": whole, "token_ids": [each for _, ids, _ in chunks for each in ids]})
    out.append(pieces.read())
    assert "".join(out) == whole
    assert pieces.read() == ""


def test_an_output_without_an_end_is_an_error():
    have, ids = Delivered(range(MOST_TOKENS - 1)), MOST_TOKENS - 1
    assert have.take(ids, [7], "x")
    with pytest.raises(AccelError, match="protocol-error"):
        have.take(ids + 1, [7], "x")
    with pytest.raises(AccelError, match="protocol-error"):
        Delivered([1], MOST_CHARACTERS).take(1, [], "x")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_result_stays_for_a_while_and_belongs_to_one_job():
    clock = Clock()
    finished = FinishedJobs(clock)
    asked, other = (digest(b"cid", "task", {"a": 1, "b": 2}, inputs) for inputs in (b"x", b"y"))
    assert asked == digest(b"cid", "task", {"b": 2, "a": 1}, b"x")
    finished.put(b"id", asked, {"n": 1}, b"result")
    assert finished.get(b"id", asked).payload == b"result"
    assert finished.get(b"another", asked) is None
    with pytest.raises(AccelError, match="bad-input"):
        finished.get(b"id", other)
    clock.now = KEPT_S + 1
    assert finished.get(b"id", asked) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, LARGEST + 5)), max_size=60))
def test_what_is_kept_is_bounded(puts):
    finished, last = FinishedJobs(Clock()), {}
    for number, size in puts:
        finished.put(bytes([number]), b"asked", {"n": "x" * 98}, bytes(size))
        if size + 103 <= LARGEST:
            last[number] = size
    kept = {number: found for number in range(51) if (found := finished.get(bytes([number]), b"asked"))}
    assert len(kept) <= MOST_JOBS
    assert sum(len(each.payload) + 103 for each in kept.values()) <= MOST_BYTES
    assert all(each.report == {"n": "x" * 98} for each in kept.values())
    assert all(len(each.payload) == last[number] for number, each in kept.items())


def test_the_oldest_go_first():
    finished = FinishedJobs(Clock())
    for number in range(MOST_JOBS + 5):
        finished.put(number.to_bytes(4), b"asked", {}, b"")
    assert finished.get((4).to_bytes(4), b"asked") is None
    assert finished.get((5).to_bytes(4), b"asked") is not None

"""Routing is a pure choice: what holds for every set of candidates."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.mesh.routing import UNKNOWN_LOAD_S, Candidate, is_measured, predict, rank
from ipfs_accel_node.protocols.advert import Speed
from ipfs_accel_node.protocols.work import Work

NEAR_TIE = 0.05


def make_candidate(peer_id="p", **facts) -> Candidate:
    defaults = {
        "local": False, "backend": "cpu", "precision": "f32", "rtt_s": 0.001, "wait_s": 0.0, "dispatched_s": 0.0,
        "speed": Speed(0.002, 1e-6, "bytes", 0.05, 20), "warm": True, "load_s": 0.0, "fetch_bytes": 0,
        "bandwidth": None,
    }  # fmt: skip
    return Candidate(peer_id=peer_id, **(defaults | facts))


seconds = st.floats(0, 100, allow_nan=False)
speeds = st.builds(
    Speed,
    seconds,
    st.floats(0, 1),
    st.sampled_from(["bytes", "pixels"]),
    st.floats(0, 1),
    st.integers(1, 99),
    st.floats(0, 1),
)
candidates = st.builds(
    Candidate,
    peer_id=st.text(max_size=4), local=st.booleans(), backend=st.sampled_from(["cpu", "openvino:CPU"]),
    precision=st.just("f32"), rtt_s=seconds, wait_s=seconds, dispatched_s=seconds, speed=st.none() | speeds,
    warm=st.booleans(), load_s=seconds, fetch_bytes=st.integers(0, 1 << 40),
    bandwidth=st.none() | st.floats(1, 1e9), observed_ratio=st.floats(1 / 8, 8), penalised=st.booleans(),
)  # fmt: skip
works = st.builds(Work, st.floats(0, 1e6), st.floats(0, 1e4))


def order(work, group, seed=0):
    return [each.candidate for each in rank(work, group, rng=random.Random(seed))]


@settings(deadline=None)
@given(works, st.lists(candidates, max_size=8))
def test_nobody_is_left_out_and_nobody_invented(work, group):
    ranked = order(work, group)
    assert sorted(map(repr, ranked)) == sorted(map(repr, group))


@settings(deadline=None)
@given(works, st.lists(candidates, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_they_come_in_decides_ties_only(work, group, rng):
    shuffled = rng.sample(group, len(group))
    first, second = (predict(work, order(work, each)[0]).total_s for each in (group, shuffled))
    low, high = sorted((first, second))
    assert high <= low * (1 + NEAR_TIE) * (1 + 1e-9)


@settings(deadline=None)
@given(works, st.lists(candidates, min_size=1, max_size=8))
def test_the_groups_never_mix(work, group):
    ranks = [(each.penalised, not is_measured(each, "bytes")) for each in order(work, group)]
    assert ranks == sorted(ranks)


@settings(deadline=None)
@given(works, st.lists(candidates, min_size=1, max_size=8))
def test_the_first_is_within_a_near_tie_of_the_fastest_of_its_group(work, group):
    first = order(work, group)[0]
    alike = [each for each in group if each.penalised == first.penalised
             and is_measured(each, "bytes") == is_measured(first, "bytes")]  # fmt: skip
    fastest = min(predict(work, each).total_s for each in alike)
    assert predict(work, first).total_s <= fastest * (1 + NEAR_TIE) * (1 + 1e-9)


@settings(deadline=None)
@given(works, candidates, st.floats(0.001, 50))
@pytest.mark.parametrize("part", ["rtt_s", "wait_s", "dispatched_s"])
def test_more_time_in_any_part_is_never_better(part, work, candidate, more):
    worse = replace(candidate, **{part: getattr(candidate, part) + more})
    assert predict(work, worse).total_s >= predict(work, candidate).total_s


@settings(deadline=None)
@given(works, candidates)
def test_a_cold_model_a_larger_fetch_and_a_worse_record_are_never_better(work, candidate):
    before = predict(work, candidate).total_s
    for worse in (
        replace(candidate, warm=False),
        replace(candidate, fetch_bytes=candidate.fetch_bytes + 1_000_000),
        replace(candidate, observed_ratio=candidate.observed_ratio * 2),
    ):
        assert predict(work, worse).total_s >= before


@settings(deadline=None)
@given(works, candidates)
def test_the_parts_add_up_and_the_reason_is_one_line(work, candidate):
    prediction = predict(work, candidate)
    assert prediction.total_s == pytest.approx(sum(prediction.parts.values()))
    assert min(prediction.parts.values()) >= 0
    assert prediction.reason
    assert "\n" not in prediction.reason


def test_the_fastest_wins_although_it_waits_longer():
    fast = make_candidate("fast", wait_s=0.1, speed=Speed(0.01, 0.0, "bytes", 0.0, 9))
    slow = make_candidate("slow", speed=Speed(1.0, 0.0, "bytes", 0.0, 9))
    assert order(Work(10), [slow, fast]) == [fast, slow]


def test_a_small_job_stays_and_a_large_one_travels():
    here = make_candidate("here", local=True, rtt_s=0.0, speed=Speed(0.001, 1e-5, "bytes", 0.0, 9))
    there = make_candidate("there", rtt_s=0.02, speed=Speed(0.001, 1e-7, "bytes", 0.0, 9))
    assert order(Work(100), [here, there])[0] is here
    assert order(Work(100_000), [here, there])[0] is there


def test_on_equality_the_local_one_wins_and_else_chance_spreads():
    here, one, other = make_candidate("here", local=True), make_candidate("one"), make_candidate("other")
    assert {order(Work(10), [one, other, here], seed)[0].peer_id for seed in range(30)} == {"here"}
    assert {order(Work(10), [one, other], seed)[0].peer_id for seed in range(30)} == {"one", "other"}


def test_own_dispatches_move_the_next_job_elsewhere():
    busy = make_candidate("a", dispatched_s=0.05)
    idle = make_candidate("b")
    assert order(Work(10), [busy, idle])[0] is idle


def test_a_node_measured_in_another_unit_counts_as_not_measured():
    pixels = make_candidate("pixels", speed=Speed(0.0, 0.0, "pixels", 0.0, 9))
    measured = make_candidate("bytes", wait_s=50.0)
    ranked = rank(Work(10), [pixels, measured], rng=random.Random(0))
    assert [each.candidate for each in ranked] == [measured, pixels]
    assert "pixels" in ranked[1].reason


def test_a_penalised_one_is_last_and_still_there():
    failed, unmeasured = make_candidate("failed", penalised=True), make_candidate("new", speed=None)
    assert order(Work(10), [failed, unmeasured]) == [unmeasured, failed]
    assert order(Work(10), [failed]) == [failed]


def test_a_load_time_that_nobody_knows_is_assumed_and_a_known_one_is_used():
    unknown = predict(Work(0), make_candidate(warm=False))
    known = predict(Work(0), make_candidate(warm=False, load_s=0.5, fetch_bytes=10_000_000, bandwidth=5e6))
    assert unknown.parts["load"] == UNKNOWN_LOAD_S
    assert (known.parts["load"], known.parts["fetch"]) == (0.5, 2.0)
    assert "fetched" in known.reason


def test_a_long_output_goes_where_writing_is_fast():
    reads = make_candidate("reads", speed=Speed(0.001, 1e-7, "bytes", 0.0, 9, per_output_s=0.05))
    writes = make_candidate("writes", speed=Speed(0.1, 1e-5, "bytes", 0.0, 9, per_output_s=0.01))
    assert order(Work(100, 1), [writes, reads])[0] is reads
    assert order(Work(100, 64), [reads, writes])[0] is writes

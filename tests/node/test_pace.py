"""The rate and the time left that go with a fetch's progress."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.pace import Pace

MB = 1_000_000


def test_a_steady_transfer():
    pace = Pace()
    assert pace.note("fetching", 0, 1000 * MB, 0.0) == ""
    assert pace.note("fetching", 50 * MB, 1000 * MB, 0.5) == "100.0 MB/s, 10 s left"
    assert pace.note("fetching", 1000 * MB, 1000 * MB, 5.0) == "200.0 MB/s, 0 s left"


def test_what_was_there_before_is_not_fast():
    pace = Pace()
    pace.note("checking", 900 * MB, 1000 * MB, 0.0)
    assert pace.note("fetching", 900 * MB, 1000 * MB, 1.0) == ""
    assert pace.note("fetching", 910 * MB, 1000 * MB, 2.0) == "10.0 MB/s, 9 s left"


def test_a_transfer_that_became_slow_is_told_so():
    pace = Pace()
    for second in range(10):
        pace.note("fetching", second * 100 * MB, 10_000 * MB, second)
    for second in range(10, 20):
        told = pace.note("fetching", 900 * MB + second * MB, 10_000 * MB, second)
    assert told.startswith("1.0 MB/s")
    assert told.endswith(" h 31 min left")


@given(st.lists(st.tuples(st.integers(-10, 1 << 50), st.integers(0, 1 << 50), st.floats(0, 1e6))))
def test_anything_is_told_or_left_out(moves):
    pace, now = Pace(), 0.0
    for done, total, later in moves:
        now += later
        assert pace.note("fetching", done, total, now) == "" or done <= total

"""Who has to leave the memory, and which failures count."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.serving.residency import MOST_STRIKES, Place, Resident, fits, victims
from ipfs_accel_node.protocols.errors import AccelError

residents = st.lists(
    st.builds(
        Resident,
        cid=st.binary(min_size=4, max_size=4),
        place=st.sampled_from(Place),
        bytes=st.integers(0, 100),
        users=st.integers(0, 2),
        last_used=st.floats(0, 10),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(0, 400), residents)
def test_those_who_leave_make_just_enough_room_and_nobody_leaves_who_is_needed(needed, limit, group):
    going = victims(needed, limit, group)
    idle = [each for each in group if each.is_warm and not each.users]
    staying = sum(each.bytes for each in group if each.place is not Place.UNLOADING)
    if going is None:
        assert staying - sum(each.bytes for each in idle) + needed > limit
        return
    assert all(each in idle for each in going)
    assert staying - sum(each.bytes for each in going) + needed <= limit
    if going:
        assert staying - sum(each.bytes for each in going[:-1]) + needed > limit
        assert max(each.last_used for each in going) <= min(
            (each.last_used for each in idle if each not in going), default=11
        )


def test_what_is_on_its_way_out_counts_as_gone_but_still_takes_its_room():
    leaving = Resident(b"leaving", Place.UNLOADING, bytes=90)
    idle = Resident(b"idle", Place.WARM, bytes=90)
    assert victims(50, 150, [leaving, idle]) == []
    assert not fits(50, 150, [leaving, idle])


@pytest.mark.parametrize(
    ("code", "strikes"),
    [("not-a-model", 1), ("conversion-failed", 1), ("unsupported-precision", 1), ("worker-died", MOST_STRIKES)],
)
def test_a_model_is_given_up_at_once_or_the_second_time(code, strikes):
    resident = Resident(b"cid")
    for _ in range(strikes):
        assert resident.error is None
        resident.strike(AccelError(code, "it failed"))
    assert resident.error.code == code
    resident.forgive()
    assert resident.error is None

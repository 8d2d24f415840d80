"""Orders say the same on both sides of a process, and go over in parts that one call takes."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.orders import Order, in_parts

PLACES = st.lists(st.tuples(st.text(max_size=3000), st.integers(0, 1 << 60)), min_size=1, max_size=8)
ORDERS = st.builds(
    Order,
    st.binary(min_size=34, max_size=36),
    st.integers(0, 1 << 21),
    st.binary(max_size=500),
    st.binary(max_size=500),
    PLACES.map(tuple),
)


@given(st.lists(ORDERS, max_size=64))
def test_orders_come_out_as_they_went_in_and_no_part_is_too_large(orders):
    there = []
    for part in in_parts(orders):
        packed = msgpack.packb([order.packed() for order in part])
        assert len(packed) < 250 << 10
        there += [Order.unpacked(order) for order in msgpack.unpackb(packed)]
    assert there == orders

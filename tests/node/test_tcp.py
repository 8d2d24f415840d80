"""Addresses as people write them."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.tcp import HostPort, probes

hosts = st.ip_addresses().map(str) | st.from_regex(r"[a-z][a-z0-9.\-]{0,20}", fullmatch=True)


@given(hosts, st.integers(0, 65_535))
def test_an_address_is_read_as_it_is_written(host, port):
    address = HostPort(host, port)
    assert HostPort.parse(f" {address} ") == address


@pytest.mark.parametrize(
    "text", ["", "desk", ":4012", "desk:", "desk:x", "desk:65536", "::1:4012", "a b:1", "/ip4/1.2.3.4:1", "[desk:1"]
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="HOST:PORT"):
        HostPort.parse(text)


def test_a_socket_can_be_told_to_ask_whether_the_other_side_is_there():
    with socket.socket() as plain:
        for option in probes():
            plain.setsockopt(*option)
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

"""Two nodes on one local network find each other by mDNS alone, in network namespaces made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import PROGRAM, NodeProcess
from ipfs_accel_node.protocols.sealing import decode_token, encode_token
from two_hosts import NoNamespacesError, TwoHosts


@pytest.fixture
def two_hosts():
    try:
        with TwoHosts() as hosts:
            yield hosts
    except NoNamespacesError as error:
        pytest.skip(str(error))


class NodeOnHost(NodeProcess):
    """A node as `start` makes it: it listens on every interface of its host, with mDNS on."""

    def __init__(self, hosts: TwoHosts, place: int, data_dir: Path, *arguments: str) -> None:
        super().__init__(f"host-{place}", data_dir, *arguments)
        self._hosts, self._place = hosts, place

    def _command(self) -> list[str]:
        start = [PROGRAM, "start", "--data-dir", str(self.data_dir), "--backends", "none", "--name", self.name]
        return self._hosts.at(self._place, [*start, "--json", *self._args])


def peers_of(node: NodeProcess) -> list[str]:
    with node.client() as client:
        return [peer["name"] for peer in client.peers() if peer["linked"]]


def wait_peers(node: NodeProcess, *names: str) -> None:
    node.wait_for(f"links with {names or 'nobody'}", lambda: peers_of(node) == list(names) or None, 30)


@pytest.fixture
def pair(two_hosts, tmp_path):
    """Two nodes; the second knows the cluster's key and no address."""
    with NodeOnHost(two_hosts, 0, tmp_path / "first") as first:
        key, addresses = decode_token(first.wait_ready()["token"])
        assert [address.split("/")[2] for address in addresses] == ["10.77.0.1"]
        with NodeOnHost(two_hosts, 1, tmp_path / "second", "--join", encode_token(key, [])) as second:
            wait_peers(second, "host-0")
            wait_peers(first, "host-1")
            yield first, second


def test_they_find_each_other_and_again_each_time_the_cable_is_back(two_hosts, pair):
    first, second = pair
    for _ in range(2):
        two_hosts.unplug()
        wait_peers(second)
        wait_peers(first)
        two_hosts.plug()
        wait_peers(second, "host-0")
        wait_peers(first, "host-1")


def test_a_machine_that_gets_another_address_says_so(two_hosts, pair):
    first, second = pair
    two_hosts.unplug()
    wait_peers(second)
    wait_peers(first)
    two_hosts.move("10.77.0.3")
    two_hosts.plug()
    wait_peers(second, "host-0")
    wait_peers(first, "host-1")
    with second.client() as client:
        second.wait_for("its new address", lambda: "10.77.0.3" in str(client.status()["addresses"]) or None, 20)

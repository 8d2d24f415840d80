"""Two nodes on one local network find each other by mDNS alone, in network namespaces made here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import NodeProcess
from ipfs_accel_node.protocols.sealing import decode_token, encode_token


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


@pytest.fixture
def two_hosts():
    """The names of two namespaces joined by one cable, each with an address of its own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making network namespaces needs root and iproute2")
    names = [f"ian-{os.getpid()}-{place}" for place in (1, 2)]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        ip("link", "add", "cable0", "netns", names[0], "type", "veth", "peer", "name", "cable0", "netns", names[1])
        for place, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.77.0.{place}/24", "dev", "cable0")
            for device in ("lo", "cable0"):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", "224.0.0.0/4", "dev", "cable0")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


class NodeInNamespace(NodeProcess):
    """A node that listens on every interface of its namespace, with mDNS on."""

    def __init__(self, namespace: str, data_dir: Path, *arguments: str) -> None:
        super().__init__(namespace, data_dir, *arguments)
        self._namespace = namespace

    def _command(self) -> list[str]:
        program = str(Path(sys.executable).with_name("ipfs-accel-node"))
        listen = ["--listen", "/ip4/0.0.0.0/tcp/4011", "--backends", "none", "--name", self.name, "--json"]
        start = [program, "start", "--data-dir", str(self.data_dir), *listen, *self._args]
        return ["ip", "netns", "exec", self._namespace, *start]


def peers_of(node: NodeProcess) -> list[str]:
    with node.client() as client:
        return [peer["name"] for peer in client.peers() if peer["linked"]]


def test_nodes_of_one_cluster_find_each_other_and_no_others(two_hosts, tmp_path):
    with NodeInNamespace(two_hosts[0], tmp_path / "first") as first:
        key, addresses = decode_token(first.wait_ready()["token"])
        assert [address.split("/")[2] for address in addresses] == ["10.77.0.1"]
        without_addresses = encode_token(key, [])
        with NodeInNamespace(two_hosts[1], tmp_path / "second", "--join", without_addresses) as second:
            second.wait_for("the peer", lambda: peers_of(second) or None, 30)
            assert peers_of(second) == [two_hosts[0]]
            first.wait_for("the peer", lambda: peers_of(first) or None, 10)

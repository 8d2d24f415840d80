"""Nodes find each other, keep strangers out, and notice who is gone. Real processes, loopback."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from cluster import NodeProcess
from ipfs_accel_node.protocols.sealing import decode_token, encode_token


def linked(node: NodeProcess) -> set[str]:
    with node.client() as client:
        return {peer["name"] for peer in client.peers() if peer["linked"]}


def wait_linked(node: NodeProcess, *names: str, seconds: float = 15.0) -> None:
    node.wait_for(f"links with {names or 'nobody'}", lambda: linked(node) == set(names) or None, seconds)


def port_of(node: NodeProcess) -> int:
    return int(node.wait_ready()["addresses"][0].split("/")[4])


@pytest.fixture
def first(tmp_path):
    with NodeProcess("first", tmp_path / "first", "--backends", "none") as node:
        node.wait_ready()
        yield node


def joined(name, tmp_path, token):
    return NodeProcess(name, tmp_path / name, "--backends", "none", "--join", token)


def test_a_third_node_links_with_all_though_it_was_told_of_one(first, tmp_path):
    token = first.wait_ready()["token"]
    with joined("second", tmp_path, token) as second:
        wait_linked(second, "first")
        with joined("third", tmp_path, token) as third:
            wait_linked(third, "first", "second")
            wait_linked(second, "first", "third")
        wait_linked(second, "first")


def test_a_restarted_node_finds_its_cluster_without_being_told(first, tmp_path):
    with joined("second", tmp_path, first.wait_ready()["token"]) as second:
        wait_linked(second, "first")
        identity = second.peer_id
    with NodeProcess("second", tmp_path / "second", "--backends", "none") as again:
        wait_linked(again, "first")
        assert again.peer_id == identity


def test_a_stranger_is_refused_and_told_why(first, tmp_path):
    _, addresses = decode_token(first.wait_ready()["token"])
    with joined("stranger", tmp_path, encode_token(b"x" * 32, addresses)) as stranger:
        stranger.wait_ready()
        with stranger.client() as client:
            told = stranger.wait_for("the refusal", lambda: client.status()["unlinked"], 15)
        assert [failure["code"] for failure in told] == ["wrong-cluster-key"]
        assert "token" in told[0]["hint"]
        assert linked(stranger) == linked(first) == set()
    assert first.running


def test_a_killed_peer_is_noticed_at_once_and_a_stopped_one_soon(first, tmp_path):
    token = first.wait_ready()["token"]
    with joined("second", tmp_path, token) as second, joined("third", tmp_path, token) as third:
        wait_linked(first, "second", "third")
        second.kill()
        wait_linked(first, "third", seconds=3)
        third.send_signal(signal.SIGSTOP)
        wait_linked(first, seconds=12)
        third.send_signal(signal.SIGCONT)
        wait_linked(first, "third", seconds=20)


@pytest.mark.parametrize(
    "garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000), b"\x13/multistream/1.0.0\n" + os.urandom(1000)]
)
def test_garbage_at_the_door_hurts_nobody(first, tmp_path, garbage):
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port_of(first)), timeout=5) as connection:
            try:
                connection.sendall(garbage)
            except OSError:
                pass
    with joined("second", tmp_path, first.wait_ready()["token"]) as second:
        wait_linked(second, "first")


def test_garbage_at_the_local_door_ends_that_connection_only(first):
    path = first.wait_ready()["socket"]
    assert Path(path).stat().st_mode & 0o777 == 0o600
    for garbage in (os.urandom(1000), b"\x00\x00\x00\x05abcde", b"\xff" * 10):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(garbage + b"\0" * 70_000)
            assert connection.recv(1000) == b""
    assert linked(first) == set()


def test_links_that_come_and_go_leave_nothing_behind(first, tmp_path):
    token = first.wait_ready()["token"]
    with joined("second", tmp_path, token) as second:
        wait_linked(second, "first")
    wait_linked(first)
    process = psutil.Process(first.pid)
    before = process.num_fds()
    for _ in range(3):
        with NodeProcess("second", tmp_path / "second", "--backends", "none") as second:
            wait_linked(second, "first")
            second.kill()
        wait_linked(first)
    end = time.monotonic() + 15
    while process.num_fds() > before + 1 and time.monotonic() < end:
        time.sleep(0.1)
    assert process.num_fds() <= before + 1


def test_a_port_in_use_and_a_folder_in_use_are_told(first, tmp_path):
    command = NodeProcess("other", tmp_path / "other", "--listen", f"/ip4/127.0.0.1/tcp/{port_of(first)}")
    assert failure_of(command, tmp_path / "other") == (1, "port-in-use")
    command = NodeProcess("other", first.data_dir)
    assert failure_of(command, first.data_dir) == (1, "already-running")


def failure_of(node: NodeProcess, data_dir) -> tuple[int, str]:
    import json
    import subprocess

    done = subprocess.run(node._command(), capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["error"]["code"]


@pytest.mark.parametrize(("refused", "expected"), [(False, "linked with first"), (True, "Connection refused")])
def test_who_joins_is_told_on_the_terminal_whether_it_worked(first, tmp_path, refused, expected):
    key, addresses = decode_token(first.wait_ready()["token"])
    token = encode_token(key, [f"/ip4/127.0.0.1/tcp/1/p2p/{first.peer_id}"] if refused else addresses)
    with Talking("joining", tmp_path / "joining", "--join", token) as joining:
        joining.wait_for(expected, lambda: expected in joining.printed() or None, 30)
        assert "ready" in joining.printed()


class Talking(NodeProcess):
    """A node that talks to people."""

    def _command(self):
        return [word for word in super()._command() if word != "--json"] + ["--backends", "none"]

    def printed(self):
        return (self.data_dir / "process.stdout").read_text()

"""How the blocking client finds the node, and whom it does not take for one."""

from __future__ import annotations

import socket

import pytest
from ipfs_accel_node import AccelError, Client
from ipfs_accel_node.node import client_connection, client_requests
from ipfs_accel_node.node.config import Paths


def test_without_a_node_it_says_how_to_start_one(tmp_path):
    with pytest.raises(AccelError) as failed:
        Client(tmp_path)
    assert failed.value.code == "not-running"
    assert "ipfs-accel-node start" in failed.value.hint


def test_a_socket_that_nobody_listens_at_is_no_node(tmp_path):
    path = Paths(tmp_path).socket
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
        with pytest.raises(AccelError, match="not-running"):
            Client(tmp_path)
    path.unlink()


def test_a_node_that_was_started_elsewhere_is_found(open_door, runtime_dir, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("XDG_RUNTIME_DIR")
        door = open_door()
    assert Paths(door.data_dir).socket != door.path
    with Client(door.data_dir) as client:
        assert client.status() == {"method": "status"}


def test_another_users_socket_is_not_trusted(open_door, monkeypatch):
    door = open_door()
    stranger = door.path.parent.stat().st_uid + 1000
    monkeypatch.setattr(client_requests.os, "getuid", lambda: stranger)
    with pytest.raises(AccelError) as failed:
        client_connection.connect([door.path])
    assert failed.value.code == "permission-denied"


def test_a_node_that_takes_no_more_connections_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(client_connection, "_CONNECT_DEADLINE_S", 0.1)
    path = Paths(tmp_path).socket
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        with pytest.raises(AccelError) as failed:
            for _ in range(10):
                waiting.append(client_connection.connect([path]))
        assert failed.value.code == "busy"
        for each in waiting:
            each.close()
    path.unlink()

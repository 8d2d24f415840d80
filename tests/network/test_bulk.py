"""Real nodes fetch over bulk connections, which no peer gets without a ticket, and go on when their processes die."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import psutil
import pytest
from cluster import NodeProcess
from ipfs_accel_node.node.content.importer import import_folder

MIB = 1 << 20
SIZE = 96 * MIB


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "random-bytes"}')
    (folder / "weights").write_bytes(os.urandom(SIZE))
    return folder


@pytest.fixture
def pair(tmp_path, model):
    """A node with the model, one that joined it, and the model's CID."""
    with NodeProcess("holder", tmp_path / "holder", "--backends", "none") as holder:
        token = holder.wait_ready()["token"]
        with NodeProcess("asker", tmp_path / "asker", "--backends", "none", "--join", token) as asker:
            with holder.client() as client:
                cid = client.add_model(model, "big")["cid"]
            asker.wait_ready()
            asker.wait_known(cid)
            yield holder, asker, cid


def bulk_of(node):
    children = psutil.Process(node.pid).children()
    return [child for child in children if "ipfs_accel_node.node.bulk.main" in child.cmdline()]


def log_of(node):
    return (node.data_dir / "node.log").read_text()


def test_a_model_comes_over_a_bulk_connection(pair):
    holder, asker, cid = pair
    assert bulk_of(holder) == bulk_of(asker) == [], "a node that moves nothing has no process for it"
    with asker.client() as client:
        client.get_model(cid)
        path = Path(client.model_info(cid)["path"])
    assert import_folder(path).size == SIZE + len('{"model_type": "random-bytes"}')
    assert "a bulk connection with" in log_of(asker)
    (serving,), (fetching,) = bulk_of(holder), bulk_of(asker)
    assert serving.nice() > psutil.Process(holder.pid).nice(), "jobs go first"
    assert "trio" not in " ".join(serving.cmdline())
    holder.stop()
    asker.stop()
    psutil.wait_procs([serving, fetching], 20)
    assert not serving.is_running()
    assert not fetching.is_running()


@pytest.mark.parametrize("victim", ["holder", "asker"])
def test_killing_a_bulk_process_ends_no_fetch(pair, victim):
    holder, asker, cid = pair
    struck = []

    def progress(state, done, *_):
        if state == "fetching" and done > SIZE / 5 and not struck:
            (process,) = bulk_of({"holder": holder, "asker": asker}[victim])
            process.kill()
            struck.append(done)

    with asker.client() as client:
        client.get_model(cid, on_progress=progress)
        assert struck
        assert client.model_info(cid)["here"] is True
        assert client.status()["state"] == "ready"


def test_a_stranger_gets_nothing_out_of_the_port(pair):
    holder, asker, cid = pair
    with asker.client() as client:
        client.get_model(cid)
    (serving,) = bulk_of(holder)
    (port,) = {each.laddr.port for each in serving.net_connections() if each.status == psutil.CONN_LISTEN}
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.settimeout(20)
            try:
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
            except OSError as error:  # it has hung up already
                assert error.errno in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET)
            try:
                while data := stranger.recv(4096):
                    assert len(data) < 100, "a TLS alert at most"
            except ConnectionError:
                pass
    with asker.client() as client:
        client.remove_model(cid)
        assert client.get_model(cid)["already"] is False
    assert bulk_of(holder) == [serving]


def test_a_node_that_is_killed_leaves_no_bulk_process(pair):
    holder, asker, cid = pair
    with asker.client() as client:
        client.get_model(cid)
    (serving,) = bulk_of(holder)
    holder.kill()
    psutil.wait_procs([serving], 20)
    assert not serving.is_running()

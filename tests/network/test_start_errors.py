"""A node that cannot start says why in one line with a code; one whose files were damaged starts all the same."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from cluster import NodeProcess
from ipfs_accel_node.node.config import Paths
from ipfs_accel_node.node.mesh.address_book import AddressBook
from ipfs_accel_node.node.serving.measurements import Key, Measurements


def start(data_dir, *arguments, **options) -> subprocess.CompletedProcess[str]:
    """Runs `start` as a person does, until it ends by itself."""
    command = NodeProcess("broken", data_dir, "--backends", "none", *arguments)._command()
    return subprocess.run(
        [part for part in command if part != "--json"], capture_output=True, text=True, timeout=30, **options
    )


def check_refused(done, code, status=None):
    """One line for a person, with the code, and the exit status that goes with it."""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert f"[{code}]" in done.stderr
    assert done.stdout == ""
    assert done.returncode == (status or (2 if code == "bad-config" else 1))


def as_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a file")


def as_folder(path: Path) -> None:
    (path / "something").mkdir(parents=True)


def short(path: Path) -> None:
    path.write_bytes(b"too short")


REFUSED = {
    "the data folder is a file": (lambda data: data, as_file, "bad-config"),
    "the content folder is a file": (lambda data: data / "content", as_file, "bad-config"),
    "the lock is a folder": (lambda data: data / "content" / "lock", as_folder, "bad-config"),
    "the models are a file": (lambda data: data / "content" / "models", as_file, "bad-config"),
    "the identity is damaged": (lambda data: data / "identity.key", short, "bad-config"),
    "the identity is a folder": (lambda data: data / "identity.key", as_folder, "bad-config"),
    "the cluster key is damaged": (lambda data: data / "cluster.key", short, "bad-config"),
    "the cluster key is a folder": (lambda data: data / "cluster.key", as_folder, "bad-config"),
    "the log is a folder": (lambda data: data / "node.log", as_folder, "bad-config"),
    "the settings are a folder": (lambda data: data / "config.toml", as_folder, "bad-config"),
    "the settings are damaged": (lambda data: data / "config.toml", short, "bad-config"),
    "the socket is a folder": (lambda data: Paths(data).socket, as_folder, "permission-denied"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_stands_in_the_way_is_told(tmp_path, case, monkeypatch):
    place, spoil, code = REFUSED[case]
    data = tmp_path / "data"
    if case != "the data folder is a file":
        data.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    spoil(place(data))
    check_refused(start(data), code)


@pytest.mark.parametrize("owner", ["a data folder of somebody else", "a data folder where none can be"])
def test_a_data_folder_that_cannot_be_written(tmp_path, owner):
    if owner == "a data folder where none can be":
        check_refused(start(Path("/proc/ipfs-accel-node")), "bad-config")
        return
    tmp_path.chmod(0o555)
    check_refused(start(tmp_path, **(as_nobody() if os.getuid() == 0 else {})), "permission-denied")


def as_nobody() -> dict[str, object]:
    """Root may write everywhere; without that right, which a process of its own gives up, it is as anybody."""
    from ctypes import CDLL

    def give_up() -> None:
        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, out of the bounding set before exec
            assert CDLL(None).prctl(24, right, 0, 0, 0) == 0

    return {"preexec_fn": give_up}


def test_addresses_that_cannot_be_listened_on(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check_refused(start(tmp_path, "--listen", f"/ip4/127.0.0.1/tcp/{port}"), "port-in-use")
    for address in ("/ip4/203.0.113.1/tcp/0", "/ip4/127.0.0.1/tcp/99999"):
        check_refused(start(tmp_path, "--listen", address), "bad-config")


def test_a_data_folder_in_use(tmp_path):
    with NodeProcess("first", tmp_path, "--backends", "none") as node:
        node.wait_ready()
        check_refused(start(tmp_path), "already-running")
        assert node.running


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "entries": 5, "a": [[1]]}', b"\xff\xfe", None], ids=str)
def test_what_a_node_remembers_may_be_damaged(tmp_path, content):
    for name in ("addresses.json", "measurements.json"):
        if content is None:
            as_folder(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    check_starts(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b'{"a": 5}', b'{"a": ["/ip4/1"]}', b'{"version": 1}'])
def test_every_such_file_is_begun_anew(tmp_path, content):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    book = AddressBook(path)
    book.put("12D3x", ["/ip4/1.2.3.4/tcp/1/p2p/12D3x"])
    assert AddressBook(path).all()["12D3x"] == ["/ip4/1.2.3.4/tcp/1/p2p/12D3x"]
    path.write_bytes(content)
    assert Measurements(path).get(Key("cid", "cpu", "f32", 1, "torch 2")) is None


def check_starts(data, cid=None):
    with NodeProcess("damaged", data, "--backends", "echo") as node, node.client() as client:
        assert client.status()["state"] == "ready"
        if cid is not None:
            assert [model["cid"] for model in client.models()] == [cid]
            assert client.submit(cid, "echo", ["x"], timeout=20).result(20)["echo"] == ["x"]
        assert "Traceback" not in node.log_tail()


def test_what_is_kept_beside_a_model_may_be_damaged(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "echo"}')
    with NodeProcess("whole", tmp_path / "data", "--backends", "echo") as node, node.client() as client:
        cid = client.add_model(model, "mine")["cid"]
    manifests = tmp_path / "data" / "content" / "manifests"
    for content in (b"", b'{"name": {}}'):
        for kept in [*manifests.glob("*.json"), *manifests.glob("*.contents")]:
            kept.write_bytes(content)
        check_starts(tmp_path / "data", cid)

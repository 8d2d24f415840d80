"""What `doctor` finds: each thing that is wrong has a code, something to do, and a place in the documentation."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ipfs_accel_node.node import cli
from ipfs_accel_node.node.commands import check_machine, check_software, doctor
from ipfs_accel_node.node.commands.check import Check
from ipfs_accel_node.node.config import load
from ipfs_accel_node.protocols import values

ROOT = Path(__file__).parents[2]
CID = "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"
PEER = "/ip4/10.0.0.1/tcp/4011/p2p/12D3KooW"
ANSWERS = {
    "status": {
        "state": "paused", "peers": 0, "models": 2,
        "backends": [
            {"name": "cpu", "state": "ready", "queued": 2, "reason": "", "models": [
                {"cid": CID, "name": "large", "error": {"code": "out-of-memory", "message": "8 GiB", "hint": ""}}]},
            {"name": "cuda", "state": "failed", "queued": 0, "reason": "it computed nonsense", "models": []},
        ],
        "unlinked": [{"address": PEER, "code": "wrong-cluster-key", "message": "another cluster", "hint": "Join it."}],
    },
    "model.ls": [
        {"cid": CID, "name": "large", "here": True, "task": "feature-extraction"},
        {"cid": CID, "name": "odd", "here": True, "task": ""},
        {"cid": CID, "name": "elsewhere", "here": False, "task": ""},
    ],
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch, clean_environment):
    monkeypatch.setattr(check_software, "backends", list)


def found(capsys, data_dir) -> dict[str, dict]:
    status = cli.main(["doctor", "--json", "--data-dir", str(data_dir)])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (status == 0)
    for check in told["checks"]:
        page, _, anchor = check["docs"].partition("#")
        assert check["ok"] or f'<a name="{anchor}"></a>' in (ROOT / page).read_text(), check
        assert check["ok"] or check["fix"], check
    return {check["name"]: check for check in told["checks"]}


def test_what_the_node_tells_is_told_again(open_door, capsys):
    def answer(session, event):
        session.result(event.request_id, {}, values.pack(ANSWERS[event.method]))

    checks = found(capsys, open_door(answer).data_dir)
    codes = {name: check["code"] for name, check in checks.items() if check["code"]}
    assert codes == {
        "node": "paused", "node's cuda": "no-backend", "model large": "out-of-memory", "model odd": "not-a-model",
        "peer": "wrong-cluster-key",
    }  # fmt: skip
    assert checks["node"]["ok"]
    assert checks["node's cpu"]["ok"]
    assert "nonsense" in checks["node's cuda"]["detail"]
    assert checks["peer"]["detail"] == f"{PEER}: another cluster"
    assert "port" not in checks


def test_a_person_gets_the_link_and_libraries_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["doctor", "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"ok +libraries +\d+ in order", shown)
    assert "docs/errors.md#not-running" in shown
    assert "msgpack" not in shown


def test_a_library_outside_its_range(capsys, monkeypatch, tmp_path):
    real = check_software.installed
    monkeypatch.setattr(check_software, "installed", lambda name: "99.0" if name in ("libp2p", "torch") else real(name))
    checks = found(capsys, tmp_path)
    for name, required in (("libp2p", True), ("torch", False)):
        assert (checks[name]["code"], checks[name]["required"]) == ("library-mismatch", required)
        assert re.match(rf"pip install '{name}[<>=,.0-9]+'", checks[name]["fix"])
    assert checks["numpy"]["ok"]


def test_a_data_folder_that_somebody_holds(capsys, tmp_path):
    holding = (
        "import sys, pathlib; from ipfs_accel_node.node.content.lock import StoreLock\n"
        "with StoreLock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holding, str(tmp_path / "content")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        check = found(capsys, tmp_path)["data folder"]
        assert (check["code"], check["required"]) == ("already-running", True)
        assert f"process {holder.pid} uses" in check["detail"]
        holder.stdin.close()
        holder.wait(20)
    assert found(capsys, tmp_path)["data folder"]["ok"]


def test_errors_in_the_log_of_the_last_day(capsys, tmp_path):
    assert found(capsys, tmp_path)["log"]["detail"] == "none yet"
    at = time.strftime("%Y-%m-%d %H:%M:%S")
    lines = [
        "2020-01-01 00:00:00,000 ERROR old: long ago", f"{at},001 INFO new: fine", f"{at},002 ERROR new: first",
        f"{at},003 CRITICAL new: last", "  a trace's line with ERROR in it",
    ]  # fmt: skip
    (tmp_path / "node.log").write_text("x" * (1 << 20) + "\n" + "\n".join(lines))
    check = found(capsys, tmp_path)["log"]
    assert (check["ok"], check["required"], check["code"]) == (False, False, "internal")
    assert check["detail"] == "2 errors in the last day, the newest: new: last"


def test_memory_and_disk(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("IPFS_ACCEL_MEMORY", "1000T")
    monkeypatch.setattr(check_machine, "_LEAST_FREE", 1 << 60)
    checks = found(capsys, tmp_path)
    assert {checks[name]["code"] for name in ("memory", "disk")} == {"out-of-memory", "disk-full"}
    monkeypatch.setenv("IPFS_ACCEL_MEMORY", "1M")
    monkeypatch.setattr(check_machine, "_available", lambda _page: 1 << 20)
    assert "End other programs" in found(capsys, tmp_path)["memory"]["fix"]


def test_multicast(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError(101, "Network is unreachable")

    with monkeypatch.context() as patched:
        patched.setattr(check_machine, "_MDNS", ("127.0.0.1", 5353))
        assert check_machine.multicast(load({}, tmp_path)).ok
    assert check_machine.multicast(load({"mdns": False}, tmp_path)).detail == "turned off"
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    check = check_machine.multicast(load({}, tmp_path))
    assert (check.ok, check.code, check.required) == (False, "network-unreachable", False)


def test_what_takes_long_is_looked_at_at_once():
    together = threading.Barrier(2, timeout=10)

    def look(name):
        together.wait()
        return [Check(name, True, False, "")]

    checks = doctor._look([(name, lambda name=name: look(name)) for name in ("one", "two")], quiet=True)
    assert [check.name for check in checks] == ["one", "two"]

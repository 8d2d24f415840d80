"""The command line against a door that answers as told: what people see, what programs get, how it fails."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cluster import PROGRAM
from ipfs_accel_node import __version__
from ipfs_accel_node.node import cli, client_jobs
from ipfs_accel_node.node.commands import check_node, check_software
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference_session import CallReceived, RequestReceived

ROOT = Path(__file__).parents[2]
CID = "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"
#: What a peer could call itself: markup that does not close, a colour, a line of its own.
HOSTILE = "[/x] [red]\x1b[31m\n\x07"

ROUTE = {
    "reason": "predicted fastest",
    "candidates": [
        {"node": "a", "node_name": HOSTILE, "local": False, "backend": "cpu", "predicted_s": 0.0071, "measured": True,
         "parts": dict.fromkeys(("round_trip", "wait", "compute", "fetch", "load"), 0.001), "reason": "measured"},
        {"node": "b", "node_name": "desk", "local": True, "backend": "cpu", "predicted_s": 0.0, "measured": False,
         "parts": dict.fromkeys(("round_trip", "wait", "compute", "fetch", "load"), 0.0), "reason": "not measured"},
    ],
}  # fmt: skip
REPORT = {
    "job_id": "00", "model": CID, "node": "a", "node_name": HOSTILE, "local": False, "backend": "cpu", "device": "d",
    "precision": "f32", "implementation": {"library": "torch 2"}, "compute_s": 0.0033, "total_s": 0.0128,
    "attempts": [{"node_name": "b", "backend": "cpu", "outcome": "peer-lost", "seconds": 1.0},
                 {"node_name": HOSTILE, "backend": "cpu", "outcome": "ok", "seconds": 1.0}],
    "route": ROUTE,
}  # fmt: skip
ANSWERS = {
    "status": {
        "peer_id": "12D3", "node_name": HOSTILE, "state": "ready", "uptime_s": 7300.0, "peers": 1, "models": 2,
        "jobs": {"running": 1, "completed": 2, "failed": 3}, "open": 1, "running": [
            {"job_id": "ab" * 16, "model": HOSTILE, "task": HOSTILE, "own": True, "node_name": HOSTILE,
             "backend": HOSTILE, "seconds": 61.0, "tokens": 7}], "memory": {"used": 10**9, "limit": 2 * 10**9},
        "backends": [{"name": "cpu", "device": HOSTILE, "state": "ready", "queued": 1, "wait_s": 0.5,
                      "reason": "", "models": [{"cid": CID, "name": HOSTILE, "state": "loading", "error": None}]}],
        "addresses": ["/ip4/1.2.3.4/tcp/4011"], "token": "ian1abc", "cluster_id": "c", "unlinked": [],
    },
    "peers": [{"peer_id": "12D3KooWabcdefgh", "name": HOSTILE, "state": "ready", "linked": True, "rtt_ms": 1.5,
               "bandwidth": 82e6, "last_heard_s": 1.0, "models": [], "addresses": [],
               "backends": [{"name": "cpu", "device": "d", "state": "ready", "queued": 3, "wait_s": 0.1}]}],
    "model.ls": [{"cid": CID, "name": HOSTILE, "size": 91_600_000, "task": HOSTILE, "here": True,
                  "pinned": True, "nodes": [{"node": "a", "node_name": HOSTILE, "backend": "cpu", "precision": "f32",
                                             "warm": True, "fixed_ms": 2.0, "per_kib_ms": 1.0}]}],
    "model.info": {"cid": CID, "name": HOSTILE, "size": 5, "task": "feature-extraction", "here": True, "nodes": [],
                   "pinned": True, "damaged": [HOSTILE], "path": HOSTILE, "why_not": HOSTILE,
                   "files": [{"path": HOSTILE, "size": 5}]},
    "model.rm": {"cid": CID, "name": HOSTILE, "freed": 5},
    "model.get": {"cid": CID, "name": "n", "size": 10**6, "seconds": 2.0, "by_source": {"p": 10**6}, "already": False},
    "model.add": {"cid": CID, "name": HOSTILE, "size": 5, "files": 1, "seconds": 0.1,
                  "why_not": "", "namesakes": []},
}  # fmt: skip


def answer(session, event):
    """Operations as above; a job's vectors are the lengths of its texts and of the first word, twice."""
    match event:
        case CallReceived(request_id, method, _):
            session.result(request_id, {}, values.pack(ANSWERS[method]))
        case RequestReceived(request_id, request, payload):
            texts = values.unpack(payload)
            session.accept(request_id, 0, 0)
            vectors = np.array([[len(text), len(text.split()[0]), 1.5] for text in texts], dtype=np.float32)
            session.result(request_id, REPORT, values.pack(vectors if request.task != "echo" else HOSTILE))


@pytest.fixture(autouse=True)
def wide(monkeypatch, clean_environment):
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture
def door(open_door):
    return open_door(answer)


@pytest.fixture
def run(door, capsys):
    """Runs a command of the node behind the door: (exit status, stdout, stderr)."""

    def run(*arguments):
        status = cli.main([*map(str, arguments), "--data-dir", str(door.data_dir)])
        return status, *capsys.readouterr()

    return run


def test_vectors_for_people(run):
    status, out, err = run("run", "m", "--input", "[/a] cat", "--input", "[red] kitten", "--explain")
    assert (status, err) == (0, "")
    assert "2 vectors of 3, float32" in out
    assert "[/a] cat" in out
    assert "[red] kitten" in out
    assert "+8.0000 +4.0000 +1.5000" in out
    assert re.search(r"1\.000 +0\.99\d", out)
    assert "3.3 ms, 12.8 ms in all" in out
    assert "before that, b cpu: peer-lost" in out
    assert re.search(r"→ .*7\.1 ms", out)
    assert "desk (here)" in out
    assert "unknown" in out


def test_vectors_for_programs(run):
    status, out, _ = run("run", "m", "--input", "a cat", "--json")
    told = json.loads(out)
    assert status == 0
    assert told["value"] == [[5.0, 1.0, 1.5]]
    assert told["report"]["route"] == ROUTE
    assert len(told["job_id"]) == 32


def test_one_vector_of_a_text_over_lines(run, tmp_path):
    (tmp_path / "text").write_text("first\nsecond\n")
    out = run("run", "m", "--file", tmp_path / "text")[1]
    assert "1 vector of 3" in out
    assert "first second" in out


def test_inputs_keep_their_order(run, door, tmp_path, monkeypatch):
    (tmp_path / "lines").write_bytes("zwei\r\ndrei häuser\n".encode())
    monkeypatch.setattr(sys, "stdin", io.StringIO("vier\nfünf"))
    inputs = ["--input", "eins", "--input-file", tmp_path / "lines", "--input", "-", "--input", "x"]
    status, _, _ = run("run", "m", *inputs, "--task", "feature-extraction", "--on", "desk", "--timeout", "5")
    request = door.wait_for(RequestReceived)[0]
    assert status == 0
    assert values.unpack(request.payload) == ["eins", "zwei", "drei häuser", "vier", "fünf", "x"]
    assert request.request.options == {"on": "desk"}
    assert 4000 < request.request.remaining_ms <= 5000


@pytest.mark.parametrize("command", [["status"], ["peers"], ["model"], ["model", "ls"], ["model", "info", "m"],
                                     ["model", "rm", "m"], ["run", "m", "--input", "x", "--explain"], ["doctor"],
                                     ["run", "m", "--input", "x", "--task", "echo"], ["model", "get", "m"],
                                     ["model", "add", "/tmp"]])  # fmt: skip
def test_what_others_call_themselves_is_shown_and_does_nothing(run, command, monkeypatch):
    monkeypatch.setattr(check_software, "backends", list)
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert not any(letter in out for letter in "\x1b\x07")
    if command not in (["model", "get", "m"], ["doctor"]):
        assert "[/x] [red]" in out


@pytest.mark.parametrize(("command", "method"), [
    (["status"], "status"), (["peers"], "peers"), (["model", "ls"], "model.ls"), (["model", "info", "m"], "model.info"),
    (["model", "rm", "m"], "model.rm"), (["model", "get", "m"], "model.get"), (["model", "add", "/tmp"], "model.add"),
])  # fmt: skip
def test_json_is_what_the_node_said(run, command, method):
    status, out, _ = run(*command, "--json")
    assert status == 0
    daemon = {"kubo": None} if method == "status" else {}
    expected = {**ANSWERS[method], **daemon} if daemon else ANSWERS[method]
    assert json.loads(out) == expected


def test_what_a_person_reads(run, monkeypatch):
    status = run("status")[1]
    assert "up 2 h 1 min · 1 peer · 2 models" in status
    assert "jobs: 1 running · 2 done · 3 failed" in status
    assert re.search(r"ready +■······· 1 +500\.0 ms +loading ", status)
    assert re.search(r"abababab .*61 s +7", status)
    assert re.search(r"…abcdefgh +ready +1\.5 ms +82\.0 MB/s +cpu +3", run("peers")[1])
    assert re.search(r"91\.6 MB .* 3\.0 ms +warm", run("model", "ls")[1])
    assert "1.0 MB in 2.0 s, 500.0 kB/s from 1 peer" in run("model", "get", "m")[1]
    monkeypatch.setattr(sys, "argv", ["/somewhere/ipfs-accel-node"])
    assert run("token")[1] == "ipfs-accel-node start --join ian1abc\n"
    monkeypatch.setattr(sys, "argv", [".venv/bin/ipfs-accel-node"])
    assert run("token")[1] == ".venv/bin/ipfs-accel-node start --join ian1abc\n"
    assert json.loads(run("token", "--json")[1]) == {"token": "ian1abc", "cluster_id": "c"}


def test_options_may_stand_before_the_command(door, capsys):
    assert cli.main(["--json", "--data-dir", str(door.data_dir), "peers"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWERS["peers"]


def test_a_folder_is_sent_from_the_root(run, door, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("model", "add", "model", "--name", "n")[0] == 0
    assert values.unpack(door.wait_for(CallReceived)[0].payload) == {
        "path": str(tmp_path / "model"),
        "name": "n",
        "anyway": False,
    }


WRONG = [
    (["run", "m"], "bad-input"),
    (["run", "m", "--input-file", "/nowhere"], "bad-input"),
    (["run", "m", "--input", "\udcff"], "bad-input"),
    (["run", "m", "--input", "x", "--timeout", "nan"], "bad-input"),
    (["run", "m", "--input", "x", "--timeout", "0"], "bad-input"),
    (["run", "m", "--input", "x", "--timeout", "soon"], "usage"),
    (["run", ""], "bad-input"),
    (["model", "add", "/nowhere"], "bad-input"),
    (["model", "add", "~nobody-of-that-name"], "bad-config"),
    (["start", "--threads", "0"], "bad-config"),
    (["start", "--memory", "much"], "bad-config"),
    (["nonsense"], "usage"),
    (["model", "nonsense"], "usage"),
    (["status", "--nonsense"], "usage"),
]


@pytest.mark.parametrize(("command", "code"), WRONG, ids=ascii)
def test_a_mistake_is_one_line_for_a_person_and_a_document_for_a_program(run, command, code):
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"error: [^\n]+ \[{code}\][^\n]*\n", err)
    status, out, _ = run(*command, "--json")
    error = json.loads(out)["error"]
    assert (status, error["code"]) == (2, code)
    assert error["docs"] == ("docs/errors.md" if code == "usage" else f"docs/errors.md#{code}")


def test_lines_that_are_no_text(run, tmp_path, monkeypatch):
    (tmp_path / "lines").write_bytes(b"fine\n\xff\xfe\n")
    assert "not text in UTF-8 [bad-input]" in run("run", "m", "--input-file", tmp_path / "lines")[2]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), "utf-8"))
    assert "not text in UTF-8 [bad-input]" in run("run", "m", "--input", "-")[2]


def test_what_a_node_answers_keeps_to_one_line(open_door, capsys):
    def refuse(session, event):
        session.fail(event.request_id, "busy", "two\nlines", "and\ta hint")

    data_dir = open_door(refuse).data_dir
    assert cli.main(["status", "--data-dir", str(data_dir)]) == 1
    assert capsys.readouterr().err == "error: two lines [busy] and a hint\n"


def test_a_stopped_node_is_told_within_the_timeout(open_door, capsys, monkeypatch):
    monkeypatch.setattr(client_jobs, "GRACE_S", 0.0)
    monkeypatch.setattr(check_node, "_NODE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(check_software, "backends", list)
    common = ["--data-dir", str(open_door("nothing").data_dir)]
    began = time.monotonic()
    assert cli.main(["run", "m", "--input", "x", "--timeout", "0.2", *common]) == 1
    assert cli.main(["run", "m", "--task", "t", "--input", "x", "--timeout", "0.2", *common]) == 1
    assert capsys.readouterr().err.count("[deadline-exceeded]") == 2
    assert cli.main(["doctor", "--json", *common]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert (checks["node"]["ok"], checks["node"]["required"]) == (False, True)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("command", [["start"], ["model", "ls"], ["model", "add", "/tmp"]])
def test_a_data_folder_that_cannot_be_one(tmp_path, capsys, command):
    (tmp_path / "file").write_text("")
    assert cli.main([*command, "--data-dir", str(tmp_path / "file")]) == 2
    assert "[bad-config]" in capsys.readouterr().err


def checks_of(capsys, data_dir) -> dict[str, dict]:
    status = cli.main(["doctor", "--json", "--data-dir", str(data_dir)])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (status == 0)
    return {check["name"]: check for check in told["checks"]}


def test_doctor_without_a_node(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_software, "backends", list)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("IPFS_ACCEL_LISTEN", f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}")
        checks = checks_of(capsys, tmp_path)
        assert (checks["port"]["code"], checks["port"]["required"]) == ("port-in-use", True)
        monkeypatch.setenv("IPFS_ACCEL_LISTEN_CLIENTS", f"127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("IPFS_ACCEL_LISTEN", "/ip4/127.0.0.1/tcp/0")
        port = checks_of(capsys, tmp_path)["port"]
        assert (port["code"], port["fix"]) == ("port-in-use", "Choose another with --listen-clients.")
    monkeypatch.setenv("IPFS_ACCEL_LISTEN_CLIENTS", "localhost:0")
    checks = checks_of(capsys, tmp_path)
    assert checks["port"]["ok"]
    assert {"Python", "libp2p", "fastecdsa", "trio", "clock", "disk", "socket", "data folder"} <= set(checks)
    assert (checks["node"]["ok"], checks["node"]["required"]) == (False, False)
    assert all(check["ok"] or check["fix"] for check in checks.values())
    monkeypatch.setattr(check_software, "installed", lambda name: "" if name in ("libp2p", "torch") else "1.0")
    checks = checks_of(capsys, tmp_path)
    assert (checks["libp2p"]["required"], checks["torch"]["required"]) == (True, False)
    assert "ipfs-accel-node[torch]" in checks["torch"]["fix"]


@pytest.mark.parametrize("address", ["here", "/ip4/300.1.1.1/tcp/1", "/ip4/127.0.0.1/tcp/99999"])
def test_doctor_names_an_address_that_is_none(tmp_path, capsys, monkeypatch, address):
    monkeypatch.setattr(check_software, "backends", list)
    monkeypatch.setenv("IPFS_ACCEL_LISTEN", address)
    assert checks_of(capsys, tmp_path)["port"]["code"] == "bad-config"


def test_doctor_names_a_configuration_that_is_wrong(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check_software, "backends", list)
    (tmp_path / "config.toml").write_text("thread = 4\n")
    check = checks_of(capsys, tmp_path)["configuration"]
    assert (check["ok"], check["code"]) == (False, "bad-config")
    assert "threads" in check["fix"]


def test_doctor_runs_where_nothing_is_installed(tmp_path):
    (tmp_path / "ipfs_accel_node").symlink_to(ROOT)
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\nfrom ipfs_accel_node.node.cli import main\n"
        f"sys.exit(main(['doctor', '--data-dir', {str(tmp_path / 'data')!r}]))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"^no +libp2p: not installed .*pip install", done.stdout, re.M)
    assert re.search(r"^– +torch: not installed .*pip install 'ipfs-accel-node\[torch\]'", done.stdout, re.M)


def test_help_and_version(capsys):
    for arguments, shown in ((["--help"], "example:"), (["--version"], __version__)):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        assert shown in capsys.readouterr().out
    assert cli.main([]) == 2


def test_help_imports_nothing_that_takes_time():
    program = (
        "import sys; from ipfs_accel_node.node.cli import build_parser; build_parser().format_help();"
        "heavy = {'anyio', 'argcomplete', 'libp2p', 'msgpack', 'numpy', 'platformdirs', 'rich', 'trio', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["--help"], ["token"], ["status"], ["peers", "--json"]])
def test_a_reader_that_left_is_no_error(door, command):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [PROGRAM, "--data-dir", str(door.data_dir), *command]
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, timeout=20)
    os.close(writer)
    assert done.returncode in (0, 1)
    assert done.stderr == b""


def test_a_terminal_without_the_letters(door):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    arguments = [PROGRAM, "status", "--data-dir", str(door.data_dir)]
    done = subprocess.run(arguments, capture_output=True, timeout=20, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_full_disk_is_one_line(door):
    with Path("/dev/full").open("wb") as full:
        arguments = [PROGRAM, "token", "--data-dir", str(door.data_dir)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1
    assert re.fullmatch(r"error: [^\n]+ \[disk-full\]\n", done.stderr)


def test_ctrl_c_is_quiet_and_reaches_the_node(open_door):
    door = open_door("nothing")
    arguments = [PROGRAM, "run", "m", "--task", "t", "--input", "x", "--data-dir", str(door.data_dir)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        door.wait_for(RequestReceived)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=20) == (b"", b"")
    assert program.returncode == 130

"""`run --batch` and `run --file` against a door that answers as told: going on, doing again, refusing."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import subprocess
import time

import pytest
from cluster import PROGRAM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node import cli, client_requests
from ipfs_accel_node.node.commands import inputs
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference_session import CallReceived, Cancelled, RequestReceived

INFO = {"cid": "bafy", "task": "own-task", "nodes": [{}]}
REPORT = {"node_name": "desk", "backend": "cpu", "total_s": 0.5, "compute_s": 0.1, "local": True, "precision": "f32",
          "implementation": {}, "attempts": []}  # fmt: skip


class Node:
    """Gives each job its inputs back, doubled; those in `broken` fail with that code.

    Attributes:
        asked: the inputs of the jobs that came.
    """

    def __init__(self):
        self.asked = []
        self.params = []
        self.broken = {}

    def __call__(self, session, event):
        match event:
            case CallReceived(request_id, "model.info", _):
                session.result(request_id, {}, values.pack(INFO))
            case RequestReceived(request_id, request, payload):
                given = values.unpack(payload)
                self.asked.append(given)
                self.params.append(request.params)
                session.accept(request_id, 0, 0)
                if str(given) in self.broken:
                    session.fail(request_id, self.broken[str(given)], "it failed", "Hint.")
                else:
                    session.result(request_id, REPORT, values.pack([given, given]))


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def run(open_door, node, capsys, clean_environment):
    door = open_door(node)

    def run(*arguments, json_too=True):
        """Runs it: (exit status, what it said as JSON or else as it is, stderr)."""
        more = ["--json"] if json_too else []
        status = cli.main(["run", *map(str, arguments), *more, "--data-dir", str(door.data_dir)])
        out, err = capsys.readouterr()
        return status, json.loads(out) if json_too else out, err

    return run


@pytest.fixture
def files(tmp_path):
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text('"a"\n{"input": ["b"], "id": 7, "params": {"p": 1}}\nbad\n"dé"\n"e"')
    return ["m", "--batch", given, "--out", out]


def told(out):
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def said(status, lines, failed, before, answer):
    assert {**answer[1], "seconds": 0, "out": ""} == {
        "out": "", "lines": lines, "failed": failed, "before": before, "seconds": 0,
    }  # fmt: skip
    assert answer[0] == status


def test_lines_in_and_lines_out(run, node, files):
    said(1, 5, 1, 0, run(*files, "--param", "p=0", "--param", "q=mean", "--timeout", "9"))
    header, *lines = told(files[-1])
    assert header["batch"]["model"] == "bafy"
    assert header["batch"]["task"] == "own-task"
    assert header["batch"]["params"] == {"p": 0, "q": "mean"}
    short = {"node_name": "desk", "backend": "cpu", "seconds": 0.5}
    assert lines[1] == {"index": 1, "id": 7, "value": [["b"], ["b"]], "report": short}
    assert [line.get("value") for line in lines] == [["a"] * 2, [["b"]] * 2, None, ["dé"] * 2, ["e"] * 2]
    assert lines[2]["error"]["code"] == "bad-input"
    assert "line 3" in lines[2]["error"]["message"]
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert sorted(params["p"] for params in node.params) == [0, 0, 0, 1]


def test_given_again_it_does_nothing_twice(run, node, files):
    run(*files)
    whole, asked = files[-1].read_bytes(), len(node.asked)
    said(1, 5, 1, 5, run(*files))
    assert (files[-1].read_bytes(), len(node.asked)) == (whole, asked)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_any_cut_of_the_output_comes_to_the_same_end(run, node, files, cut):
    files[-1].unlink(missing_ok=True)
    run(*files)
    whole = files[-1].read_bytes()
    cut %= len(whole) + 1
    files[-1].write_bytes(whole[:cut])
    node.asked.clear()
    before = max(0, whole[:cut].count(b"\n") - 1)
    said(1, 5, 1, before, run(*files))
    assert files[-1].read_bytes() == whole
    assert len(node.asked) == len({0, 1, 3, 4} - set(range(before))), "a line that was complete ran again"


def test_what_failed_is_done_again_when_asked_for(run, node, files):
    node.broken = {"a": "worker-died", "dé": "busy"}
    said(1, 5, 3, 0, run(*files))
    node.broken = {}
    node.asked.clear()
    said(1, 5, 3, 5, run(*files))
    assert node.asked == []
    said(1, 5, 1, 5, run(*files, "--retry-errors"))
    assert sorted(node.asked) == ["a", "dé"]
    assert [line.get("value") for line in told(files[-1])[1:]] == [["a"] * 2, [["b"]] * 2, None, ["dé"] * 2, ["e"] * 2]
    assert [each.name for each in files[-1].parent.iterdir() if "retry" in each.name] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_doing_again_goes_on_too(run, node, files, cut_out, cut_again):
    """The first output is cut anywhere, and so is the one that a killed `--retry-errors` left beside it."""
    out = files[-1]
    beside = out.with_name("out.jsonl.retry")
    for each in (out, beside):
        each.unlink(missing_ok=True)
    node.broken = {}
    run(*files)
    good = out.read_bytes()
    out.unlink()
    node.broken = {"a": "worker-died", "e": "busy"}
    run(*files)
    worse = out.read_bytes()
    node.broken = {}
    out.write_bytes(worse[: cut_out % (len(worse) + 1)])
    beside.write_bytes(good[: cut_again % (len(good) + 1)])
    had_errors = b'"error": {' in b"".join(line for line in out.read_bytes().splitlines(True) if line.endswith(b"\n"))
    run(*files, "--retry-errors")
    assert out.read_bytes() == good
    assert beside.exists() != had_errors


@pytest.mark.parametrize("change", [["--param", "p=2"], ["--task", "other"]])
def test_the_output_of_another_batch_is_refused_and_stays(run, files, change):
    run(*files)
    whole = files[-1].read_bytes()
    status, answer, err = run(*files, *change)
    assert (status, answer["error"]["code"], files[-1].read_bytes()) == (2, "other-batch", whole)
    assert len(err.splitlines()) == 1
    files[2].write_text('"another"\n')
    assert run(*files)[1]["error"]["code"] == "other-batch"
    files[-1].write_text("my notes\n")
    assert run(*files)[1]["error"]["code"] == "other-batch"
    assert files[-1].read_text() == "my notes\n"


def test_two_runs_do_not_write_to_one_file(run, files):
    with files[-1].open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        status, answer, _ = run(*files)
    assert (status, answer["error"]["code"]) == (1, "busy")
    said(1, 5, 1, 0, run(*files))


@pytest.mark.parametrize("code", ["draining", "peer-lost"])
def test_a_node_that_stops_is_written_down_for_no_line(run, node, files, open_door, code):
    """A peer that is lost fails its line; that this node drains befalls all of them."""
    node.broken = {"dé": code}
    status, answer, err = run(*files, "--concurrency", "1")
    if code == "peer-lost":
        assert (status, answer["failed"]) == (1, 2)
    else:
        assert (status, answer["error"]["code"]) == (1, "draining")
        assert re.search("stopped before line 4.* goes on from there", err)
        assert len(told(files[-1])) == 4
        node.broken = {}
        said(1, 5, 1, 3, run(*files))


def test_ctrl_c_is_quiet_and_reaches_the_node(open_door, files):
    """It comes when the first of two lines is done, and nothing is left to do but wait for the second."""

    def answer(session, event):
        match event:
            case CallReceived(request_id, _, _):
                session.result(request_id, {}, values.pack(INFO))
            case RequestReceived(request_id, _, payload) if values.unpack(payload) == "a":
                session.accept(request_id, 0, 0)
                session.result(request_id, REPORT, payload)

    files[2].write_text('"a"\n"b"\n')
    door = open_door(answer)
    arguments = [PROGRAM, "run", *map(str, files), "--concurrency", "2", "--data-dir", str(door.data_dir)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        end = time.monotonic() + 20
        while not files[-1].exists() or files[-1].read_bytes().count(b"\n") < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        door.wait_for(RequestReceived, 2)
        program.send_signal(signal.SIGINT)
        try:
            assert program.communicate(timeout=20) == (b"", b"")
        finally:
            program.kill()  # leaving the `with` waits for it without an end
    assert program.returncode == 130
    door.wait_for(Cancelled)
    assert [line.get("value") for line in told(files[-1])[1:]] == ["a"]


def test_what_people_see(run, node, files):
    status, out, err = run(*files, json_too=False)
    assert (status, err) == (1, "")
    assert re.match(r"5 lines, 1 failed, .* → ", out)
    assert "--retry-errors" in out
    files[2].write_text('"a"')
    files[-1].unlink()
    status, out, _ = run(*files, json_too=False)
    assert (status, "--retry-errors" in out) == (0, False)


def test_an_empty_file_is_an_empty_batch(run, files):
    files[2].write_bytes(b"")
    said(0, 0, 0, 0, run(*files))
    assert len(told(files[-1])) == 1


WRONG = [
    (["m", "--batch", "in"], "usage"),
    (["m", "--out", "out", "--input", "x"], "usage"),
    (["m", "--retry-errors", "--input", "x"], "usage"),
    (["m", "--concurrency", "3", "--input", "x"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--input", "x"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--file", "in"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--explain"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--param", "x"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--max-new-tokens", "9"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--stream"], "usage"),
    (["m", "--batch", "in", "--out", "out", "--concurrency", "0"], "bad-input"),
    (["m", "--batch", "in", "--out", "out", "--timeout", "0"], "bad-input"),
    (["m", "--batch", "in", "--out", "out", "--param", "timeout=1"], "bad-input"),
    (["m", "--batch", "nowhere", "--out", "out"], "bad-input"),
    (["m", "--batch", ".", "--out", "out"], "bad-input"),
    (["m", "--batch", "in", "--out", "."], "bad-input"),
    (["m", "--batch", "in", "--out", "in"], "bad-input"),
    (["m", "--batch", "in", "--out", "/dev/null"], "bad-input"),
    (["m", "--batch", "in", "--out", "nowhere/out"], "bad-input"),
    (["m", "--file", "nowhere"], "bad-input"),
    (["m", "--file", "."], "bad-input"),
    (["m", "--file", "bytes"], "bad-input"),
    (["m", "--file", "/dev/zero"], "too-large"),
]


@pytest.mark.parametrize(("arguments", "code"), WRONG, ids=lambda case: " ".join(case)[:60])
def test_a_mistake_is_one_line_with_a_code(run, node, tmp_path, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text('"a"\n')
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    status, answer, err = run(*arguments)
    assert answer["error"]["code"] == code
    assert status == (1 if code == "too-large" else 2)
    assert len(err.splitlines()) == 1
    assert node.asked == []
    assert (tmp_path / "in").read_text() == '"a"\n'


def test_whole_files_are_inputs_in_their_order(run, node, tmp_path):
    (tmp_path / "text").write_text("two\nlines, häuser\n")
    (tmp_path / "lines").write_text("one\ntwo\n")
    given = [
        "--input",
        "x",
        "--file",
        tmp_path / "text",
        "--input-file",
        tmp_path / "lines",
        "--file",
        tmp_path / "text",
    ]
    assert run("m", *given, "--param", "pooling=cls", "--param", "n=[1]")[0] == 0
    assert node.asked == [["x", "two\nlines, häuser\n", "one", "two", "two\nlines, häuser\n"]]
    assert node.params == [{"pooling": "cls", "n": [1]}]


def test_the_task_decides_what_a_file_is(run, node, tmp_path):
    (tmp_path / "sound").write_bytes(b"\xff\x00")
    assert run("m", "--file", tmp_path / "sound", "--task", "automatic-speech-recognition", json_too=False)[0] == 0
    assert node.asked == [[b"\xff\x00"]]


def test_a_file_at_the_bound_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_PAYLOAD", 4)
    assert inputs.MAX_PAYLOAD != client_requests.MAX_PAYLOAD
    (tmp_path / "fits").write_text("four")
    assert inputs.for_task([inputs.WholeFile(str(tmp_path / "fits"))], "t") == ["four"]

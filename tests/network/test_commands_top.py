"""`top` on a terminal, in a pipe and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time

import pytest
from cluster import PROGRAM, NodeProcess, environment, make_echo_model
from cluster import run_program as run

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("top")
    with NodeProcess("desk", folder / "desk", "--backends", "echo") as node, node.client() as client:
        client.add_model(make_echo_model(folder / "model"), "mine")
        yield node


@pytest.fixture
def held_job(desk, tmp_path):
    """A job that computes as long as the test looks."""
    with desk.client() as client:
        job = client.submit("mine", "echo", ["x"], timeout=60, hold="compute", hold_dir=str(tmp_path))
        end = time.monotonic() + DEADLINE_S
        while not (tmp_path / "compute.held").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        yield job
        (tmp_path / "compute.go").touch()
        job.result()


def test_for_programs_it_is_a_line_a_look(desk, held_job):
    done = run("top", "--json", "--count", "2", "--interval", "0.05", data_dir=desk.data_dir)
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr, len(looks)) == (0, "", 2)
    for look in looks:
        assert look["status"]["node_name"] == "desk"
        assert [job["job_id"] for job in look["status"]["running"]] == [held_job.job_id]
        assert [model["name"] for model in look["models"]] == ["mine"]
        assert look["peers"] == []
    assert looks[0]["at"] < looks[1]["at"]
    assert "ian1" not in done.stdout


def test_in_a_pipe_it_is_plain(desk, held_job):
    done = run("top", "--count", "1", data_dir=desk.data_dir)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    for shown in ("desk", held_job.job_id[:8], "mine", "echo"):
        assert shown in done.stdout


def read_until(terminal: int, wanted: bytes) -> bytes:
    shown, end = b"", time.monotonic() + DEADLINE_S
    while wanted not in shown:
        assert time.monotonic() < end, shown
        shown += os.read(terminal, 1 << 16)
    return shown


def test_on_a_terminal_q_ends_it_and_the_terminal_is_as_before(desk, held_job):
    outer, inner = pty.openpty()
    shown = {**environment(), "COLUMNS": "80", "LINES": "40", "TERM": "xterm-256color"}
    arguments = [PROGRAM, "top", "--data-dir", str(desk.data_dir), "--interval", "30"]
    with subprocess.Popen(arguments, stdin=inner, stdout=inner, stderr=inner, env=shown) as program:
        assert b"\x1b[?1049h" in read_until(outer, held_job.job_id[:8].encode())
        os.write(outer, b"q")
        read_until(outer, b"\x1b[?1049l")
        assert program.wait(DEADLINE_S) == 0
    os.close(inner)
    os.close(outer)


@pytest.mark.parametrize("wrong", [("--count", "0"), ("--interval", "0"), ("--interval", "nan")])
def test_what_is_no_number_of_looks_or_seconds(desk, wrong):
    done = run("top", *wrong, data_dir=desk.data_dir)
    assert done.returncode == 2
    assert f"{wrong[0]} {wrong[1]}" in done.stderr
    assert "[bad-input]" in done.stderr

"""Progress as a person sees it: moving on a terminal, a line a state elsewhere, nothing where a program reads."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess

import pytest
from cluster import PROGRAM
from ipfs_accel_node.node.commands import output
from ipfs_accel_node.node.commands.bars import Bars
from ipfs_accel_node.protocols import values
from rich.console import Console

REPORTS = [
    ("adding", 0, 4_000_000, ""), ("adding", 2_000_000, 4_000_000, ""), ("loading", 0, 1, "on desk"),
    ("loading", 1, 1, "on desk"), ("waiting", 0, 0, "two\nlines\x1b[31m [red]"),
]  # fmt: skip
ADDED = {"cid": "bafy", "name": "n", "size": 5, "files": 1, "seconds": 0.1}


def answer(session, event):
    for report in REPORTS:
        session.progress(event.request_id, *report)
    session.result(event.request_id, {}, values.pack(ADDED))


@pytest.fixture
def arguments(open_door, tmp_path):
    return [PROGRAM, "--data-dir", str(open_door(answer).data_dir), "model", "add", str(tmp_path)]


def test_elsewhere_it_is_a_line_a_state_on_stderr(arguments, tmp_path):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    what = tmp_path.name
    assert done.stderr.splitlines() == [
        f"adding {what}, 4.0 MB", f"loading {what}, on desk", f"waiting {what}, two�lines�[31m [red]"
    ]  # fmt: skip
    assert "adding" not in done.stdout


def test_a_program_reads_one_document_and_nothing_else(arguments):
    done = subprocess.run([*arguments, "--json"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_states_without_end_are_bounded(capsys):
    with output.progress("m", quiet=False) as report:
        for number in range(1000):
            report(f"state {number}", 0, 0, "")
    assert len(capsys.readouterr().err.splitlines()) == 16


def test_on_a_terminal_it_moves_on_stderr(arguments, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    outer, inner = pty.openpty()
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=inner, timeout=20)
    os.close(inner)
    shown = b""
    try:
        while data := os.read(outer, 1 << 16):
            shown += data
    except OSError:  # the other end is closed: there is no more
        pass
    os.close(outer)
    assert done.returncode == 0
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()))
    assert any(f"waiting {tmp_path.name} two�lines�[31m [red]" in line for line in lines), lines
    assert b"bafy" not in shown  # what was asked for goes to stdout


def drawn(bars) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(bars._progress.get_renderable())
    return out.getvalue()


def test_bytes_have_a_rate_and_all_else_has_its_seconds():
    bars = Bars("minilm")
    bars.report("fetching", 1_000_000, 4_000_000, "")
    assert re.search(r"fetching minilm .*━.* 1\.0/4\.0 MB", drawn(bars))
    bars.report("fetching", 3_000_000, 4_000_000, "")
    assert "3.0/4.0 MB" in drawn(bars)
    bars.report("loading", 0, 1, "on desk")
    assert re.search(r"loading minilm on desk +0 s", drawn(bars))
    bars.report("loading", 0, 1, "on laptop")
    assert re.search(r"loading minilm on laptop +0 s", drawn(bars))
    assert not re.search(r"MB|bytes|━", drawn(bars))

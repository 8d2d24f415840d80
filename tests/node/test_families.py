"""`families` says of each family and backend what came of trying it, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ipfs_accel_node.backends.matrix import FAILED, FAMILIES, NOT_HERE, REAL, UNTESTED, try_families
from ipfs_accel_node.node.commands import families as command


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [str(Path(sys.executable).with_name("ipfs-accel-node")), "families", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


@pytest.mark.engines
def test_a_family_that_ran_is_real_and_has_its_evidence():
    done = run("bert", "t5", "--json")
    cells = json.loads(done.stdout)
    assert done.returncode == 0
    assert [(cell["family"], cell["backend"], cell["status"]) for cell in cells] == [
        ("bert", "cpu", REAL), ("t5", "cpu", REAL), ("bert", "openvino", REAL), ("t5", "openvino", REAL),
        ("bert", "cuda", UNTESTED), ("t5", "cuda", UNTESTED),
    ]  # fmt: skip
    for cell in cells[:4]:
        assert cell["evidence"]["canary"]["parts"]
        assert cell["evidence"]["weights"]
        assert (cell["task"], cell["device"], cell["implementation"]) > ("", "", "")
    assert all(cell["note"] for cell in cells[4:])


@pytest.mark.engines
def test_what_takes_too_long_or_ends_its_process_has_failed_and_the_rest_goes_on():
    cells = []
    try_families("cpu", ["bert", "t5"], cells.append, timeout_s=0.0)
    assert [(cell.family, cell.status, cell.code) for cell in cells] == [
        ("bert", FAILED, "deadline-exceeded"), ("t5", FAILED, "deadline-exceeded"),
    ]  # fmt: skip


def test_a_backend_that_fails_says_with_which_code():
    cells = []
    try_families("abacus", ["bert"], cells.append)
    assert [(cell.status, cell.code) for cell in cells] == [(FAILED, "backend-missing")]


def test_a_backend_that_is_not_installed_is_not_on_this_machine(monkeypatch):
    cells = []
    monkeypatch.setattr(command.registry, "available", lambda: ["cpu"])
    command._fill("openvino", ["bert"], cells.append)
    assert [(cell.status, bool(cell.note)) for cell in cells] == [(NOT_HERE, True)]


@pytest.mark.parametrize("arguments", [("abacus",), ("--backend", "abacus")])
def test_a_name_that_there_is_not_is_told_in_one_line(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "abacus" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_families_are_tried():
    assert len(FAMILIES) == 14

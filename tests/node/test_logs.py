"""The node's log: as JSON, and never beyond its bound."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest
from ipfs_accel_node.node import logs

OWN = "ipfs_accel_node.node.example"


@pytest.fixture
def log_to(tmp_path):
    """`logs.log_to` into a file, undone afterwards; gives the file."""
    root, package = logging.getLogger(), logging.getLogger("ipfs_accel_node")
    before = root.handlers[:], root.level, package.level
    root.handlers.clear()

    def begin(level="info", *, as_json):
        logs.log_to(tmp_path / "node.log", level, as_json=as_json)
        return tmp_path / "node.log"

    yield begin
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = before[0], before[1]
    package.setLevel(before[2])


def test_each_line_is_one_object(log_to):
    file = log_to(as_json=True)
    logging.getLogger(OWN).info("two\nlines of %s, \udcff", "häuser")
    try:
        raise ValueError("mine")
    except ValueError:
        logging.getLogger("other").exception("it failed")
    first, second = [json.loads(line) for line in file.read_text().splitlines()]
    assert first.pop("time").endswith("Z")
    assert first == {"level": "info", "logger": OWN, "message": "two\nlines of häuser, \udcff"}
    assert abs((datetime.fromisoformat(second["time"]) - datetime.now(UTC)).total_seconds()) < 60
    assert (second["level"], second["message"]) == ("error", "it failed")
    assert second["exception"].startswith("Traceback")
    assert second["exception"].endswith("ValueError: mine")


def test_lines_for_people(log_to):
    file = log_to(as_json=False)
    logging.getLogger(OWN).info("said")
    logging.getLogger(OWN).debug("not said")
    logging.getLogger("other").info("not said either")
    logging.getLogger(OWN).warning("\udcff")
    assert [line.split(" ", 2)[2] for line in file.read_text().splitlines()] == [
        f"INFO {OWN}: said", f"WARNING {OWN}: \\udcff",
    ]  # fmt: skip


def test_the_log_is_bounded(log_to, monkeypatch):
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    file = log_to(as_json=True)
    for number in range(200):
        logging.getLogger(OWN).info("line %d", number)
    kept = sorted(file.parent.iterdir())
    assert [each.name for each in kept] == ["node.log", "node.log.1", "node.log.2", "node.log.3"]
    assert all(each.stat().st_size <= 1000 for each in kept)
    assert json.loads(file.read_text().splitlines()[-1])["message"] == "line 199"

"""Nodes that the tests of recovery share."""

from __future__ import annotations

import pytest
from cluster import NodeProcess


@pytest.fixture
def three_nodes(tmp_path):
    """An entry node that computes nothing, and two that do."""
    with NodeProcess("entry", tmp_path / "entry", "--backends", "none") as entry:
        token = entry.wait_ready()["token"]
        with (
            NodeProcess("first", tmp_path / "first", "--backends", "echo", "--join", token) as first,
            NodeProcess("spare", tmp_path / "spare", "--backends", "echo", "--join", token) as spare,
        ):
            first.wait_ready()
            spare.wait_ready()
            yield entry, first, spare

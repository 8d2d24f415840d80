"""What people look at keeps to its lines and its width, whatever others call themselves."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.commands import output, panels, top
from ipfs_accel_node.protocols.errors import AccelError
from rich.cells import cell_len
from rich.console import Console

NAMES = st.text(max_size=60) | st.sampled_from(["minilm", "[/x] [red]", "a-name-that-is-rather-long-for-a-column", ""])
CID = "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"


def offer(name) -> dict:
    return {"node_name": name, "backend": "openvino:CPU", "fixed_ms": 2.0, "per_kib_ms": 1.0, "warm": True}


def facts(name, other) -> dict:
    backend = {
        "name": "openvino:CPU", "device": "AMD EPYC", "state": "ready", "queued": 70, "wait_s": 12.0, "reason": "",
        "models": [{"cid": CID, "name": name, "state": "measuring", "error": None}],
    }  # fmt: skip
    return {
        "status": {
            "peer_id": "12D3KooWabcdefgh", "node_name": name, "state": "ready", "uptime_s": 1e6, "peers": 1,
            "models": 1, "jobs": {"running": 1, "completed": 10**6, "failed": 2}, "backends": [backend],
            "open": 1, "memory": {"used": 10**10, "limit": 2 * 10**10},
            "running": [{"job_id": "ab" * 16, "model": other, "task": "automatic-speech-recognition", "own": False,
                         "node_name": name, "backend": "openvino:CPU", "seconds": 61.0, "tokens": 1234}],
        },
        "peers": [{"peer_id": "12D3KooWabcdefgh", "name": other, "state": "paused", "linked": True, "rtt_ms": 1234.5,
                   "bandwidth": 82e6, "backends": [backend] * 3, "models": []}],
        "models": [{"cid": CID, "name": other, "size": 91_600_000, "here": True, "pinned": True,
                    "nodes": [offer(name), offer(other)]}],
    }  # fmt: skip


def drawn(renderable, width) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(renderable)
    return out.getvalue().splitlines()


@given(NAMES, NAMES)
@settings(max_examples=60, deadline=None)
def test_a_thing_is_a_line_in_80_columns(name, other):
    looked = facts(name, other)
    for rows, lines in (
        (panels.backends(looked["status"]), 1),
        (panels.jobs(looked["status"]["running"], 1), 1),
        (panels.peers(looked["peers"]), 1),
        (panels.models(looked["models"]), 2),
        (panels.models(looked["models"], whole=False), 2),
    ):
        shown = drawn(rows, 80)
        assert len(shown) == lines + 4, "\n".join(shown)  # a line of air above and below, the head and its rule
        assert all(cell_len(line) <= 80 for line in shown)
    assert all(cell_len(line) <= 80 for line in drawn(top.draw(looked), 80))


@pytest.mark.parametrize(("queued", "cells"), [(0, 0), (1, 1), (8, 8), (64, 8)])
def test_a_cell_a_job_as_far_as_there_are_cells(queued, cells):
    (line,) = drawn(panels.queue_bar(queued), 80)
    assert line == "■" * cells + "·" * (8 - cells) + f" {queued}"


def test_more_jobs_than_are_listed_are_counted():
    running = facts("n", "m")["status"]["running"]
    assert any("and 41 more" in line for line in drawn(panels.jobs(running, 42), 80))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 ms"), (1e-6, "<0.1 ms"), (0.0033, "3.3 ms"), (1.5, "1.5 s"), (12, "12 s"), (300, "5 min"),
     (7300, "2 h 1 min"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations(seconds, shown):
    assert output.duration(seconds) == shown


def test_a_screen_outlives_its_node_and_a_pipe_does_not(monkeypatch):
    answers = [facts("n", "m"), AccelError("not-running", "no node answers"), facts("again", "m")]

    def look(_client):
        answer = answers.pop(0)
        if isinstance(answer, AccelError):
            raise answer
        return answer

    monkeypatch.setattr(top, "look", look)
    seen = list(top._looks(None, 1.0, 3, lambda _seconds: False, steady=True))
    assert [(view["status"]["node_name"], lost) for view, lost in seen] == [
        ("n", ""), ("n", "no node answers"), ("again", "")
    ]  # fmt: skip
    answers[:] = [facts("n", "m"), AccelError("not-running", "no node answers")]
    looks = top._looks(None, 1.0, None, lambda _seconds: False, steady=False)
    next(looks)
    with pytest.raises(AccelError):
        next(looks)

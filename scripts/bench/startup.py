"""How fast the package loads and a node is ready, and what an idle node uses of the processor and of memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from bench.report import Figure, finish, note, options
from cluster import PROGRAM, NodeProcess

_RUNS = 7


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the idle node is watched (default 20)")
    asked = parser.parse_args()
    figures = [
        Figure("import ipfs_accel_node", import_seconds(), "s", floor=0.15),
        Figure("ipfs-accel-node --help", run_seconds([PROGRAM, "--help"]), "s", floor=0.4),
    ]
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        figures += node_figures(Path(folder), asked.seconds)
    return finish("startup", figures, asked.json)


def import_seconds() -> float:
    """What the import adds to the interpreter's own start."""
    bare = run_seconds([sys.executable, "-c", "pass"])
    return run_seconds([sys.executable, "-c", "import ipfs_accel_node"]) - bare


def run_seconds(command: list[str]) -> float:
    """Wall seconds of a command that ends by itself, the median of some runs after one that warms the disk cache."""
    taken = []
    for _ in range(_RUNS + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def node_figures(folder: Path, seconds: float) -> list[Figure]:
    began = time.perf_counter()
    with NodeProcess("idle", folder / "idle", "--backends", "none") as node:
        node.wait_ready()
        ready = time.perf_counter() - began
        note(f"watching an idle node for {seconds:g} s")
        used_before = cpu_seconds(node.pid)
        time.sleep(seconds)
        share = (cpu_seconds(node.pid) - used_before) / seconds
        memory = psutil.Process(node.pid).memory_info().rss / 1e6
    return [
        Figure("a node is ready after", ready, "s", floor=3.0),
        Figure("idle, of one core", share * 100, "%", floor=2.0),
        Figure("idle, resident memory", memory, "MB", floor=200.0),
    ]


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    sys.exit(main())

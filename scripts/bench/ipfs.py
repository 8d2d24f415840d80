"""How fast a model travels between a node and Kubo 0.22 over Bitswap, both ways, beside Kubo and Kubo.

Each fetch goes into an empty store, from a peer that is named, all on this machine. "256 KiB" is what `ipfs add` makes
by default, CIDs of version 0 with dag-pb leaves; "1 MiB" is what a node makes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.report import MIB, Figure, finish, make_random_model, median_and_p99, note, options
from cluster import NodeProcess
from kubo_process import KuboProcess, why_not_here


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, default=100, help="MiB of the model (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="fetches, of which the median counts (default 3)")
    asked = parser.parse_args()
    if why := why_not_here():
        parser.error(why)
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder, ExitStack() as stack:
        figures = measure(Path(folder), asked.size * MIB, asked.rounds, stack)
    return finish("ipfs", figures, asked.json)


def measure(folder: Path, size: int, rounds: int, stack: ExitStack) -> list[Figure]:
    note(f"making a model of {size // MIB} MiB")
    model = make_random_model(folder / "model", size)
    kubo = stack.enter_context(KuboProcess(folder / "kubo"))
    holder = stack.enter_context(NodeProcess("holder", folder / "holder", "--backends", "none", "--public"))
    small = kubo.add(model)
    with holder.client() as client:
        large = client.add_model(model, "random")["cid"]
    address = holder.wait_ready()["addresses"][0]

    def to_kubo(cid: str, source: str) -> Callable[[Path], float]:
        return lambda place: kubo_rate(place, cid, source, size)

    def to_node(cid: str, source: KuboProcess) -> Callable[[Path], float]:
        return lambda place: node_rate(place, cid, source, size)

    second = stack.enter_context(KuboProcess(folder / "second"))
    second.connect(address)
    second.get(large, folder / "copy")
    ways = {
        "Kubo to Kubo, 256 KiB": to_kubo(small, kubo.addresses[0]),
        "Kubo to Kubo, 1 MiB": to_kubo(large, second.addresses[0]),
        "Kubo to a node, 256 KiB": to_node(small, kubo),
        "Kubo to a node, 1 MiB": to_node(large, second),
        "a node to Kubo, 1 MiB": to_kubo(large, address),
    }
    rates: dict[str, list[float]] = {what: [] for what in ways}
    for number in range(rounds):
        for place, (what, way) in enumerate(ways.items()):
            note(f"{what}, round {number + 1}")
            rates[what].append(way(folder / f"round-{number}-{place}"))
    return [Figure(what, median_and_p99(found)[0], "MiB/s", more_is_better=True) for what, found in rates.items()]


def kubo_rate(folder: Path, cid: str, source: str, size: int) -> float:
    """MiB a second until Kubo has written the files out."""
    with KuboProcess(folder) as kubo:
        kubo.connect(source)
        began = time.perf_counter()
        kubo.get(cid, folder / "got")
        return size / MIB / (time.perf_counter() - began)


def node_rate(folder: Path, cid: str, source: KuboProcess, size: int) -> float:
    """MiB a second of one `model get`, as the caller sees it."""
    with NodeProcess("asker", folder, "--backends", "none") as asker, asker.client() as client:
        asker.wait_ready()
        began = time.perf_counter()
        client.get_model(cid, ipfs_peers=source.addresses)
        return size / MIB / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())

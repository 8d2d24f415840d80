"""How fast a model travels from node to node, beside reading, hashing and writing the same bytes in this process.

Each fetch goes into an empty data folder. The plain loop is what any fetch has to do at the least: it reads the file in
MiB pieces, hashes each with SHA-256 and writes it, without any network.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.report import MIB, Figure, finish, make_random_model, median_and_p99, note, options
from cluster import NodeProcess


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--size", type=int, default=400, help="MiB of the model (default 400)")
    parser.add_argument("--rounds", type=int, default=3, help="fetches, of which the median counts (default 3)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as folder:
        figures = measure(Path(folder), asked.size * MIB, asked.rounds)
    return finish("fetch", figures, asked.json)


def measure(folder: Path, size: int, rounds: int) -> list[Figure]:
    note(f"making a model of {size // MIB} MiB")
    model = make_random_model(folder / "model", size)
    raw = [copy_rate(model / "model.safetensors", folder / "copy") for _ in range(rounds)]
    with NodeProcess("holder", folder / "holder", "--backends", "none") as holder:
        token = holder.wait_ready()["token"]
        with holder.client() as client:
            began = time.perf_counter()
            cid = client.add_model(model, name="random")["cid"]
            add_rate = size / MIB / (time.perf_counter() - began)
        fetched = [fetch_rate(folder / f"round-{number}", token, cid, size) for number in range(rounds)]
    (raw_rate, _), (rate, _) = median_and_p99(raw), median_and_p99(fetched)
    return [
        Figure("read, hash and write alone", raw_rate, "MiB/s", more_is_better=True),
        Figure("model add", add_rate, "MiB/s", more_is_better=True),
        Figure("model get from one peer", rate, "MiB/s", goal=150, more_is_better=True),
        Figure("model get over the plain loop", rate / raw_rate, "x", more_is_better=True),
    ]


def copy_rate(source: Path, target: Path) -> float:
    """MiB a second of reading, hashing and writing, down to the disk as a fetch does."""
    began = time.perf_counter()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(MIB):
            hashlib.sha256(piece).digest()
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return source.stat().st_size / MIB / seconds


def fetch_rate(data_dir: Path, token: str, cid: str, size: int) -> float:
    """MiB a second of one `model get`, as the caller sees it."""
    with NodeProcess("asker", data_dir, "--backends", "none", "--join", token) as asker:
        asker.wait_known(cid)
        with asker.client() as client:
            note(f"fetching into {data_dir.name}")
            began = time.perf_counter()
            client.get_model(cid)
            return size / MIB / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())

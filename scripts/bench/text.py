"""How fast a text is written: both engines beside transformers as it comes, in one process, on one thread.

The real SmolLM2 reads a prompt of some 230 tokens and writes 64 greedy ones. The rounds of all go in turns, so that a
machine that slows down slows all of them; the ratios are what counts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import real_model
from bench.report import Figure, finish, median_and_p99, note, options
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.families.samples import text_of
from ipfs_accel_node.backends.interface import LoadOptions, RunContext

TOKENS = 64
_PROMPT = text_of(1024)
#: Gives out the times at which its tokens came.
Writer = Callable[[], list[float]]


@dataclass
class Taken:
    """Seconds to the first token, and each of the others, of every round."""

    first_s: list[float] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)

    def add(self, began: float, times: list[float]) -> None:
        self.first_s.append(times[0] - began)
        self.token_s.append((times[-1] - times[0]) / (len(times) - 1))


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="texts of each, of which the median counts (default 5)")
    asked = parser.parse_args()
    folder = real_model.ensure("smollm2")
    with tempfile.TemporaryDirectory(prefix="ian-bench-") as cache:
        writers = {
            "transformers": _transformers(folder),
            "cpu f32": _backend(folder, "cpu", "f32", Path(cache)),
            "cpu bf16": _backend(folder, "cpu", "bf16", Path(cache)),
            "openvino f32": _backend(folder, "openvino", "f32", Path(cache)),
        }
        if "bf16" in registry.create("openvino").probe().precisions:
            writers["openvino bf16"] = _backend(folder, "openvino", "bf16", Path(cache))
        taken = _measure(writers, asked.rounds)
    return finish("text", [each for name in writers for each in _figures(name, taken)], asked.json)


def _measure(writers: dict[str, Writer], rounds: int) -> dict[str, Taken]:
    taken = {name: Taken() for name in writers}
    for number in range(rounds + 1):
        note(f"round {number} of {rounds}" if number else "warming up")
        for name, write in writers.items():
            began = time.perf_counter()
            times = write()
            if number:
                taken[name].add(began, times)
    return taken


def _figures(name: str, taken: dict[str, Taken]) -> list[Figure]:
    (first, _), (token, _) = median_and_p99(taken[name].first_s), median_and_p99(taken[name].token_s)
    (plain_first, _), (plain, _) = (median_and_p99(each) for each in vars(taken["transformers"]).values())
    floor = None if name == "transformers" else 1.0
    return [
        Figure(f"{name}: tokens a second", 1 / token, "", more_is_better=True),
        Figure(f"{name}: over transformers", plain / token, "x", floor=floor, more_is_better=True),
        Figure(f"{name}: reads the prompt in", first * 1e3, "ms"),
        Figure(f"{name}: reading over transformers", plain_first / first, "x", more_is_better=True),
    ]


def _transformers(folder: Path) -> Writer:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    class Watch:
        """A streamer, which `generate` hands the prompt first and then each token."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _ids: object) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def write() -> list[float]:
        watch, given = Watch(), tokenizer(_PROMPT, return_tensors="pt")
        with torch.inference_mode():
            model.generate(
                **given, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, streamer=watch
            )  # fmt: skip
        return watch.times[1:]

    return write


def _backend(folder: Path, engine: str, precision: str, cache: Path) -> Writer:
    note(f"loading {engine} {precision}")
    model = registry.create(engine).load(folder, LoadOptions(cache=cache, key="smollm2", precision=precision))

    def write() -> list[float]:
        times: list[float] = []
        context = RunContext(emit=lambda *_: times.append(time.perf_counter()))
        model.run(_PROMPT, {"max_new_tokens": TOKENS, "ignore_eos": True}, context)
        return times[:TOKENS]

    return write


if __name__ == "__main__":
    sys.exit(main())

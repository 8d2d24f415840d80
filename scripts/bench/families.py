"""Each family in the shape of its reference checkpoint (random weights), on each engine, beside plain transformers.

A job is whole: plain inputs in, a result out. The rounds of all go in turns on one thread in one process, so that a
machine that slows down slows all of them; the ratios are what counts. LLaVA's reference has 7 billion parameters and
is left out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from bench.plain_transformers import LABELS, NEW, SPEECH_S, TEXT, Job, plain, timed
from bench.report import Figure, finish, median_and_p99, note, options
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.families.samples import encoded_image, encoded_sound, frames_of_noise
from ipfs_accel_node.backends.interface import BackendError, LoadOptions
from ipfs_accel_node.backends.making_apart import make_apart
from ipfs_accel_node.backends.making_shapes import LIKE, REFERENCE

_PLAIN: Final = "transformers f32"
_OURS: Final = (("cpu", "f32"), ("openvino", "f32"), ("openvino", "bf16"), ("openvino", "int8"))
_WRITES: Final = {"max_new_tokens": NEW, "ignore_eos": True}


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"some of {', '.join(LIKE)} (all)")
    parser.add_argument("--rounds", type=int, default=5, help="jobs of each, of which the median counts (default 5)")
    asked = parser.parse_args()
    figures: list[Figure] = []
    for family in asked.families or LIKE:
        with tempfile.TemporaryDirectory(prefix="ian-bench-") as scratch:
            figures += _measure(family, Path(scratch), asked.rounds)
    return finish("families", figures, asked.json)


def _measure(family: str, scratch: Path, rounds: int) -> list[Figure]:
    import torch

    folder = scratch / family
    make_apart(folder, family, REFERENCE)
    torch.set_num_threads(1)
    jobs: dict[str, Job] = {_PLAIN: plain(family, folder)}
    for engine, precision in _OURS:
        note(f"{family}: loading {engine} {precision}")
        try:
            how = LoadOptions(scratch / "cache", family, precision, threads=1)
            model = registry.create(engine).load(folder, how)
        except BackendError as error:
            note(f"{family}: {engine} {precision}: {error.message}")
            continue
        jobs[f"{engine} {precision}"] = _job(family, model)
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        note(f"{family}: round {number} of {rounds}" if number else f"{family}: warming up")
        for name, job in jobs.items():
            seconds = timed(job)
            if number:
                taken[name].append(seconds)
    return [each for name in jobs for each in _figures(family, name, taken)]


def _figures(family: str, name: str, taken: dict[str, list[float]]) -> list[Figure]:
    (seconds, _), (before, _) = median_and_p99(taken[name]), median_and_p99(taken[_PLAIN])
    figures = [Figure(f"{family} {name}: a job", seconds * 1e3, "ms")]
    if name != _PLAIN:
        floor = 1.0 if name.endswith("f32") else None
        figures.append(Figure(f"{family} {name}: over transformers", before / seconds, "x", floor, more_is_better=True))
    return figures


def _job(family: str, model: Any) -> Job:
    inputs, params = _given(family)
    return lambda: model.run(inputs, params)


def _given(family: str) -> tuple[Any, dict[str, Any]]:
    """The inputs of `plain_transformers`, as jobs take them."""
    labels = {"candidate_labels": LABELS}
    if family in ("bert", "sentence"):
        return TEXT, {}
    if family in ("llama", "opt", "gpt2"):
        return TEXT, _WRITES
    if family == "t5":
        return TEXT, {"max_new_tokens": NEW}
    if family == "whisper":
        return encoded_sound(SPEECH_S, 16_000), {"max_new_tokens": NEW, "language": "en"}
    if family == "wav2vec2":
        return encoded_sound(SPEECH_S, 16_000), {}
    if family == "clip":
        return encoded_image(), labels
    if family == "clap":
        return encoded_sound(SPEECH_S, 48_000), labels
    return frames_of_noise(16 if family == "videomae" else 8), labels if family == "xclip" else {}


if __name__ == "__main__":
    sys.exit(main())

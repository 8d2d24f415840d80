"""What a run's timings and counts say in the units that people compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: What a query is about, the first of them that there is: of an image with labels, the image.
_QUERIES: Final = ("images", "videos", "sounds", "texts")


def figures(timings: Mapping[str, float], counts: Mapping[str, int], run_s: float) -> dict[str, float]:
    """Those that fit the run.

    ms_per_query: milliseconds of the whole run for each image, video, sound or text.
    generation_s, tokens_per_s: writing, after the first token where that was timed apart.
    prompt_tokens_per_s: reading, until the first token.
    realtime_factor: seconds of computing for each second of sound; below 1 is faster than it plays.
    """
    queries = next((counts[name] for name in _QUERIES if counts.get(name)), 1)
    made = {"ms_per_query": 1000 * run_s / queries, **_writing(timings, counts)}
    if counts.get("audio_ms"):
        made["realtime_factor"] = 1000 * run_s / counts["audio_ms"]
    return made


def _writing(timings: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    written = counts.get("output_tokens", counts.get("completion_tokens", 0))
    compute_s, first_s = timings.get("compute_s", 0.0), timings.get("first_token_s", 0.0)
    made: dict[str, float] = {}
    if first_s > 0 and counts.get("prompt_tokens"):
        made["prompt_tokens_per_s"] = counts["prompt_tokens"] / first_s
    later = written - 1 if first_s > 0 else written
    if later > 0 and compute_s > first_s:
        made |= {"generation_s": compute_s - first_s, "tokens_per_s": later / (compute_s - first_s)}
    return made

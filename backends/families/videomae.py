"""VideoMAE with a head: a video in, what is done in it out. Without one, see `videomae_base`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext
from ..loading import ModelFacts
from .stages import Stages
from .video_model import VideoModel
from .zero_shot import softmax

_TOP_K: Final = 5


@dataclass(frozen=True)
class _Prepared:
    pixels: list[NDArray[np.float32]]
    top_k: int
    alone: bool


class VideoMaeModel(VideoModel):
    """Stage: `video` (pixel_values [1, frames, 3, height, width] → logits [1, labels])."""

    task = "video-classification"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self._labels = {int(number): str(label) for number, label in facts.config["id2label"].items()}

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a video (bytes or uint8 [frames, height, width, 3]), or `{"videos": [video, …]}`; `top_k`."""
        top_k = params.get("top_k", _TOP_K)
        if set(params) - {"top_k"} or type(top_k) is not int or top_k < 1:
            raise BackendError("bad-input", "unknown parameters, or a top_k below 1", "There is top_k.")
        return _Prepared(self.pixels_of(inputs), top_k, not isinstance(inputs, dict))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[NDArray[np.float32]]:
        return [self.stage("video", context, pixel_values=pixels[None])[0][0] for pixels in prepared.pixels]

    def result(self, prepared: _Prepared, computed: list[NDArray[np.float32]]) -> tuple[Any, dict[str, int]]:
        """`[{"score", "label"}, …]` best first, for each of several videos."""
        each = [self._best(logits, prepared.top_k) for logits in computed]
        return each[0] if prepared.alone else each, {"videos": len(each), "frames": len(each) * self._frames}

    def _best(self, logits: NDArray[np.float32], top_k: int) -> list[dict[str, Any]]:
        scores = softmax(logits)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [{"score": float(scores[place]), "label": self._labels.get(int(place), str(place))} for place in order]


MODEL: Final = VideoMaeModel

"""VideoMAE without a head, as it comes from pretraining: a video in, a vector out.

The vector is the mean of the last layer's states over all tokens [width], which is what a head is put on
(https://github.com/MCG-NJU/VideoMAE); it is not normalised.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext
from ..loading import ModelFacts
from .stages import Stages
from .video_model import VideoModel

_Videos = tuple[list[NDArray[np.float32]], bool]


class VideoMaeBaseModel(VideoModel):
    """Stage: `video` (pixel_values [1, frames, 3, height, width] → vector [1, width])."""

    task = "feature-extraction"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self.details.update(dimensions=int(facts.config["hidden_size"]), pooling="mean", normalize=False)

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Videos:
        """`inputs` a video (bytes or uint8 [frames, height, width, 3]), or `{"videos": [video, …]}`."""
        if params:
            raise BackendError("bad-input", f"unknown parameters {', '.join(sorted(params))}", "There are none.")
        return self.pixels_of(inputs), not isinstance(inputs, dict)

    def compute(self, prepared: _Videos, context: RunContext) -> list[NDArray[np.float32]]:
        return [self.stage("video", context, pixel_values=pixels[None])[0][0] for pixels in prepared[0]]

    def result(self, prepared: _Videos, computed: list[NDArray[np.float32]]) -> tuple[Any, dict[str, int]]:
        """float32 [width], or [videos, width] for several."""
        counts = {"videos": len(computed), "frames": len(computed) * self._frames}
        return computed[0] if prepared[1] else np.stack(computed), counts


MODEL: Final = VideoMaeBaseModel

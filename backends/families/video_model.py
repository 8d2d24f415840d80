"""What the families of videos have in common: how one becomes pixels, and what they are measured with."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, Sample
from ..loading import ModelFacts
from ..settings import whole
from .images import read_steps
from .samples import frames_of_noise
from .staged import StagedModel
from .stages import Stages
from .video import open_video

_MOST_VIDEOS: Final = 16
_MOST_FRAMES: Final = 4096


class VideoModel(StagedModel):
    """A staged model that looks at so many frames of each video."""

    #: The part of config.json that says how many, and how many where it does not say.
    frames_part: ClassVar[str] = ""
    usual_frames: ClassVar[int] = 16
    sample_params: ClassVar[dict[str, Any]] = {}

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self._steps = read_steps(facts.folder)
        self._frames = whole(facts.part(self.frames_part), "num_frames", self.usual_frames, 1, _MOST_FRAMES)
        self.details["frames"] = self._frames

    def pixels_of(self, inputs: Any) -> list[NDArray[np.float32]]:
        """float32 [frames, 3, height, width] of each video. Raises BackendError bad-input, too-large."""
        videos = _videos_of(inputs)
        return [np.stack([self._steps.apply(each) for each in open_video(video, self._frames)]) for video in videos]

    def samples(self) -> list[Sample]:
        video = frames_of_noise(self._frames)
        return [Sample({"videos": [video] * count}, self.sample_params, video.nbytes * count) for count in (1, 2)]


def _videos_of(inputs: Any) -> list[Any]:
    videos = inputs.get("videos") if isinstance(inputs, dict) else [inputs]
    if not isinstance(videos, list) or not videos or len(videos) > _MOST_VIDEOS:
        raise BackendError("bad-input", f"the inputs are no video, nor a map with 1 to {_MOST_VIDEOS} videos", "")
    return videos

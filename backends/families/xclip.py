"""X-CLIP: a video and labels in, how well each label fits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import RunContext
from ..loading import ModelFacts
from .stages import Stages
from .tokenizing import Ids
from .video_model import VideoModel
from .zero_shot import LabelTexts, read_labels, scored

#: Published examples give the labels as they are.
TEMPLATE: Final = "{}"


@dataclass(frozen=True)
class _Prepared:
    labels: list[str]
    texts: dict[str, Ids]
    pixels: list[NDArray[np.float32]]
    alone: bool


class XClipModel(VideoModel):
    """Stages: `video` (→ vectors [1, d], features of its frames), `text` (→ [labels, d]), `match` (→ logits).

    The labels are read in the light of the video, so what `text` gives is no embedding yet.
    """

    task = "zero-shot-video-classification"
    frames_part = "vision_config"
    usual_frames = 8
    sample_params = {"candidate_labels": ["playing", "eating"]}  # noqa: RUF012

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self._texts = LabelTexts(facts.folder, facts.part("text_config"))

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` a video, or `{"videos": [video, …]}`; `candidate_labels`, `hypothesis_template`."""
        labels, sentences = read_labels(params, TEMPLATE)
        pixels = self.pixels_of(inputs)
        return _Prepared(labels, self._texts.encode(sentences), pixels, not isinstance(inputs, dict))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[NDArray[np.float32]]:
        """Logits [labels] of each video."""
        (texts,) = self.stage("text", context, **prepared.texts)
        logits: list[NDArray[np.float32]] = []
        for pixels in prepared.pixels:
            video, features = self.stage("video", context, pixel_values=pixels[None])
            (scores,) = self.stage("match", context, text_embeds=texts, video_embeds=video, features=features)
            logits.append(scores[0])
        return logits

    def result(self, prepared: _Prepared, computed: list[NDArray[np.float32]]) -> tuple[Any, dict[str, int]]:
        """`[{"score", "label"}, …]` best first, for each of several videos."""
        each = [scored(prepared.labels, logits) for logits in computed]
        counts = {"videos": len(each), "frames": len(each) * self._frames, "texts": len(prepared.labels)}
        return each[0] if prepared.alone else each, counts


MODEL: Final = XClipModel

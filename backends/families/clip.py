"""CLIP: an image and labels in, how well each label fits out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import RunContext, Sample
from ..loading import ModelFacts
from .images import images_of, read_steps
from .samples import encoded_image
from .staged import StagedModel
from .stages import Stages
from .tokenizing import Ids
from .zero_shot import LabelTexts, read_labels, scored

TEMPLATE: Final = "This is a photo of {}."
_MOST_IMAGES: Final = 64
_AT_ONCE: Final = 8


@dataclass(frozen=True)
class _Prepared:
    labels: list[str]
    texts: dict[str, Ids]
    pixels: list[NDArray[np.float32]]
    alone: bool


class ClipModel(StagedModel):
    """Stages: `image` (pixel_values → unit vectors [n, d], the scale) and `text` (→ unit vectors [labels, d])."""

    task = "zero-shot-image-classification"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        self._steps = read_steps(facts.folder)
        self._texts = LabelTexts(facts.folder, facts.part("text_config"))

    def prepare(self, inputs: Any, params: dict[str, Any]) -> _Prepared:
        """`inputs` an image or a list of them; `candidate_labels`, `hypothesis_template` as in transformers."""
        labels, sentences = read_labels(params, TEMPLATE)
        pixels = [self._steps.apply(image) for image in images_of(inputs, _MOST_IMAGES)]
        return _Prepared(labels, self._texts.encode(sentences), pixels, not isinstance(inputs, list))

    def compute(self, prepared: _Prepared, context: RunContext) -> list[NDArray[np.float32]]:
        """Logits [labels] of each image."""
        (labels,) = self.stage("text", context, **prepared.texts)
        logits: list[NDArray[np.float32]] = []
        for begin in range(0, len(prepared.pixels), _AT_ONCE):
            pixels = np.stack(prepared.pixels[begin : begin + _AT_ONCE])
            images, scale = self.stage("image", context, pixel_values=pixels)
            logits += list(float(np.ravel(scale)[0]) * images @ labels.T)
        return logits

    def result(self, prepared: _Prepared, computed: list[NDArray[np.float32]]) -> tuple[Any, dict[str, int]]:
        """`[{"score", "label"}, …]` best first, for each image of a list."""
        each = [scored(prepared.labels, logits) for logits in computed]
        return each[0] if prepared.alone else each, {"images": len(each), "texts": len(prepared.labels)}

    def samples(self) -> list[Sample]:
        labels = {"candidate_labels": ["a cat", "a dog"]}
        one = encoded_image()
        return [Sample([one] * count, labels, len(one) * count) for count in (1, 4)]


MODEL: Final = ClipModel

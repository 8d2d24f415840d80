"""LLaVA: images and a text or messages in, new text out, token by token, as text generation gives it.

    image ─► tiles ─► see ─┐
    ids ───► embed ────────┴─► embeds, each image in the place of its tokens ─► write ─► logits ─► next token ─┐
                                                                                  ▲──────── embed ◄────────────┘

Each output has its own `write`, so several that are asked for from several threads go on beside each other: one is
seen while another is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError, RunContext, Sample
from ..loading import ModelFacts
from .images import Pixels, open_image, read_steps
from .pictured import read_pictured
from .samples import encoded_image, text_of
from .sampling import next_token
from .staged import unloaded
from .stages import Remembering, Stages
from .text import Prompt, Take, TextModel, closed
from .text_params import TextParams, read_params

#: Tokens of a prompt that are read at once, between two looks at whether the job was cancelled.
_READ_TOKENS: Final = 512
_MEASURED_NEW: Final = 16
_QUESTION: Final = "What is in this picture?"

Embeds = NDArray[np.float32]
#: What the language model reads of the images, once it is asked for; None where there are none.
See = Callable[[], Embeds | None]


@dataclass(frozen=True)
class Shown:
    """An image before it is seen: float32 [tiles, 3, side, side], its tokens, and its [width, height] in pixels."""

    tiles: Pixels
    tokens: int
    size: tuple[int, int]


class LlavaModel(TextModel):
    """Stages: `see` (pixel_values [n, 3, side, side] → [n, patches, hidden]), `embed` and `write` (it remembers)."""

    task = "image-text-to-text"

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, closed, details, precision, memory)
        self._stages = dict(stages)
        self._image_token = _image_token(facts.config)
        if not 0 <= self._image_token < self._vocabulary or not self._tokenizer.id_to_token(self._image_token):
            raise BackendError("not-a-model", "its tokenizer has no token for an image")
        vision = facts.part("vision_config")
        self._side = int(vision["image_size"])
        self._across = self._side // int(vision["patch_size"])
        strategy = facts.config.get("vision_feature_select_strategy", "default")
        if strategy not in ("default", "full"):
            raise BackendError("not-a-model", f"it selects features in a way that is not served: {strategy!r}"[:200])
        self._patches = self._across**2 + (strategy == "full")
        self._steps = read_steps(facts.folder)
        if self._steps.output_size != (self._side, self._side):
            raise BackendError("not-a-model", "its preprocessor_config.json makes images of another size than it sees")
        self.details["image_side"] = self._side

    def language_config(self, facts: ModelFacts) -> dict[str, Any]:
        """With as many places as its attention looks back: all are seen, or the prompt is too long."""
        config = facts.part("text_config")
        scaling = config.get("rope_scaling")
        kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None
        if kind in ("dynamic", "longrope"):
            raise BackendError("not-a-model", f"its places change with its length ({kind}), which is not served")
        window = config.get("sliding_window")
        if type(window) is int and config.get("use_sliding_window", True):
            config["max_position_embeddings"] = min(window, int(config["max_position_embeddings"]))
        return config

    def look_ahead(self, inputs: Any, params: dict[str, Any], context: RunContext = RunContext()) -> Prompt:
        """Images are seen; nothing is written."""
        began = time.perf_counter()
        ids, images, counts = self._opened(inputs, read_params(params), context)
        seen = self._seen(images, context)
        return Prompt(ids, partial(self._write, lambda: seen, context), counts, time.perf_counter() - began)

    def read(self, inputs: Any, asked: TextParams, context: RunContext) -> Prompt:
        """`inputs` as in `pictured`, each image as in `images`. A plain text has <image> where an image stands."""
        if isinstance(inputs, Prompt):
            return inputs
        ids, images, counts = self._opened(inputs, asked, context)
        return Prompt(ids, partial(self._write, partial(self._seen, images, context), context), counts)

    def _opened(
        self, inputs: Any, asked: TextParams, context: RunContext
    ) -> tuple[list[int], list[Shown], dict[str, int]]:
        """The prompt's ids, with as many for each image as it takes; its images; how many there are."""
        pictured = read_pictured(inputs)
        ids = self._ids_of(pictured.text, pictured.messages, asked)
        places = ids.count(self._image_token)
        if places != len(pictured.images):
            raise BackendError(
                "bad-input",
                f"the prompt has {places} places for images, and there are {len(pictured.images)} images",
                "Each image has one part in the messages, or <image> in the text.",
            )
        images = self._prepared(pictured.images, context)
        waiting = iter(images)
        spread = [[each] * next(waiting).tokens if each == self._image_token else [each] for each in ids]
        counts = {"images": len(images), "image_tokens": sum(each.tokens for each in images)}
        return self._checked(list(chain(*spread))), images, counts

    def samples(self) -> list[Sample]:
        """A text and an image; a short output and a longer one."""
        one, many = ({"max_new_tokens": count, "ignore_eos": True} for count in (1, 1 + _MEASURED_NEW))
        picture = encoded_image()
        shown = {"text": "<image>" + _QUESTION, "images": picture}
        short = min(64, self._context // 4)
        size = len(picture) + len(_QUESTION)
        given = [(text_of(short), one, short), (shown, one, size), (text_of(short), many, short)]
        return [Sample(inputs, params, units, params["max_new_tokens"]) for inputs, params, units in given]

    def close(self) -> None:
        super().close()
        self._stages = dict.fromkeys(self._stages, unloaded)

    # --- what LLaVA-Next does otherwise

    def tiles_of(self, image: Any) -> Shown:
        """`image` a `PIL.Image` in RGB."""
        return Shown(self._steps.apply(image)[None], self._patches, image.size)

    def joined(self, _image: Shown, features: list[NDArray[np.float32]]) -> Embeds:
        """What `see` gives of an image's tiles, as the language model reads it [tokens, hidden]."""
        joined: Embeds = features[0].reshape(-1, features[0].shape[-1])
        return joined

    # --- inside

    def _ids_of(self, text: str | None, messages: list[dict[str, Any]], asked: TextParams) -> list[int]:
        if text is not None and asked.chat and self._chat.exists:
            messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        elif text is not None:
            return self._encode(text, special=True)
        prompt = self._chat.render(messages)
        begins = self._chat.begins
        return self._encode(prompt, special=not (begins and prompt.startswith(begins)))

    def _prepared(self, images: list[Any], context: RunContext) -> list[Shown]:
        """No more of them than the model can read are made into tiles."""
        prepared: list[Shown] = []
        for image in images:
            self._look(context)
            prepared.append(self.tiles_of(open_image(image)))
            if (tokens := sum(each.tokens for each in prepared)) >= self._context:
                raise self._too_long(f"has images of {tokens} tokens")
        return prepared

    def _write(self, see: See, context: RunContext, ids: list[int], params: TextParams, limit: int, take: Take) -> None:
        embeds = self._with_images(self._embedded(ids), ids, see())
        write = self._stages["write"]
        step = write.fresh() if isinstance(write, Remembering) else write
        ids = list(ids)
        for begin in range(0, embeds.shape[1], _READ_TOKENS):
            self._look(context)
            logits = step({"embeds": embeds[:, begin : begin + _READ_TOKENS]})[0][0]
        for left in reversed(range(limit)):
            token = next_token(logits, ids, params)
            ids.append(token)
            if not take(token) or not left:
                return
            logits = step({"embeds": self._embedded([token])})[0][0]

    def _with_images(self, embeds: Embeds, ids: list[int], seen: Embeds | None) -> Embeds:
        """Images come first: of all tokens that stand for one, those of an output before come last, and are none."""
        if seen is not None:
            places = np.flatnonzero(np.asarray(ids) == self._image_token)[: len(seen)]
            if len(places) != len(seen) or seen.shape[1] != embeds.shape[2]:
                raise BackendError("not-a-model", "what it sees of an image is not what it has places for")
            embeds[0, places] = seen
        return embeds

    def _seen(self, images: list[Shown], context: RunContext) -> Embeds | None:
        """What the language model reads of all images [tokens, hidden]."""
        return np.concatenate([self.joined(each, self._see(each, context)) for each in images]) if images else None

    def _see(self, image: Shown, context: RunContext) -> list[NDArray[np.float32]]:
        self._look(context)
        return self._stages["see"]({"pixel_values": image.tiles})

    def _embedded(self, ids: list[int]) -> Embeds:
        embeds: Embeds = self._stages["embed"]({"tokens": np.array([ids], np.int64)})[0]
        return embeds

    def _look(self, context: RunContext) -> None:
        if context.cancelled():
            raise BackendError("cancelled", "the job was cancelled")


def _image_token(config: dict[str, Any]) -> int:
    return int(config.get("image_token_index", config.get("image_token_id", 32_000)))


MODEL: Final = LlavaModel

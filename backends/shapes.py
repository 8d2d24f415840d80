"""Whether the sizes in a configuration are those of the weights, before an engine allocates what it says.

A model has one tower or several (text, vision, audio); each has so many layers, of a width, with an inner width. What
a configuration leaves out is what transformers takes for granted.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from .interface import BackendError

_MAX_DIGITS: Final = 9
_MOST: Final = 1 << 24

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Tower:
    """What a configuration calls its sizes, and how the tensors that have them are named.

    Attributes:
        part: where in the configuration; empty for the whole of it.
        prefix: how the names of its tensors begin, wherever a head may have put something before.
        embedding: how the name of its embeddings [vocabulary, hidden] ends; empty where it has none.
    """

    part: str = ""
    prefix: str = ""
    hidden: tuple[str, ...] = ("hidden_size", "dim")
    layers: tuple[str, ...] = ("num_hidden_layers", "n_layers")
    intermediate: tuple[str, ...] = ("intermediate_size", "hidden_dim")
    embedding: str = "word_embeddings.weight"
    layer: str = "layer"
    defaults: Mapping[str, int] = field(default_factory=dict)


_CLIP_TEXT: Final = _Tower(
    part="text_config",
    prefix="text_model.",
    embedding="token_embedding.weight",
    layer="layers",
    defaults={
        "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 49408,
        "max_position_embeddings": 77, "pad_token_id": 1,
    },
)  # fmt: skip
_CLIP_VISION: Final = _Tower(
    part="vision_config",
    prefix="vision_model.",
    embedding="",
    layer="layers",
    defaults={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_frames": 8},
)
_CLAP_TEXT: Final = _Tower(
    part="text_config",
    prefix="text_model.",
    defaults={
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "vocab_size": 50265,
        "max_position_embeddings": 514, "pad_token_id": 1,
    },
)  # fmt: skip
_ENCODER: Final = _Tower(embedding="")

_TOWERS: Final[dict[str, tuple[_Tower, ...]]] = {
    "llama": (_Tower(embedding="embed_tokens.weight", layer="layers"),),
    "opt": (
        _Tower(
            hidden=("word_embed_proj_dim",), intermediate=("ffn_dim",), embedding="embed_tokens.weight", layer="layers"
        ),
    ),
    "gpt2": (
        _Tower(
            hidden=("n_embd",), layers=("n_layer",), intermediate=("n_inner",), embedding="wte.weight", layer="h"
        ),
    ),
    "clip": (_CLIP_TEXT, _CLIP_VISION),
    "xclip": (_CLIP_TEXT, _CLIP_VISION),
    "clap": (_CLAP_TEXT,),
    "wav2vec2": (_Tower(embedding="", prefix="encoder.", layer="layers"),),
    "videomae": (_ENCODER,),
    "whisper": (
        _Tower(
            prefix="encoder.", hidden=("d_model",), layers=("encoder_layers",), intermediate=("encoder_ffn_dim",),
            embedding="", layer="layers",
        ),
        _Tower(
            prefix="decoder.", hidden=("d_model",), layers=("decoder_layers",), intermediate=("decoder_ffn_dim",),
            embedding="embed_tokens.weight", layer="layers",
        ),
    ),
    "t5": (
        _Tower(
            prefix="encoder.", hidden=("d_model",), layers=("num_layers",), intermediate=("d_ff",),
            embedding="shared.weight", layer="block",
        ),
        _Tower(
            prefix="decoder.", hidden=("d_model",), layers=("num_decoder_layers", "num_layers"),
            intermediate=("d_ff",), embedding="shared.weight", layer="block",
        ),
    ),
}  # fmt: skip

_LLAVA_TEXT: Final = _Tower(
    part="text_config",
    prefix="language_model.",
    embedding="embed_tokens.weight",
    layer="layers",
    defaults={
        "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32,
        "max_position_embeddings": 2048,
    },
)  # fmt: skip
_MISTRAL: Final = {"intermediate_size": 14_336, "max_position_embeddings": 131_072, "sliding_window": 4096}
#: What may write in a LLaVA, by its model_type.
_WRITERS: Final = {
    "llama": _LLAVA_TEXT,
    "mistral": replace(_LLAVA_TEXT, defaults={**_LLAVA_TEXT.defaults, **_MISTRAL}),
}
_LLAVA_VISION: Final = replace(
    _CLIP_VISION, prefix="vision_tower.", defaults={**_CLIP_VISION.defaults, "image_size": 224, "patch_size": 32}
)


def _towers_of(model_type: str, config: Mapping[str, Any]) -> tuple[_Tower, ...]:
    """Raises BackendError unsupported-task for a LLaVA that is made of other parts than are served."""
    if model_type not in ("llava", "llava_next"):
        return _TOWERS.get(model_type, (_Tower(),))
    writes, sees = (
        part.get("model_type", otherwise) if isinstance(part := config.get(name), Mapping) else None
        for name, otherwise in (("text_config", "llama"), ("vision_config", "clip_vision_model"))
    )
    if writes not in _WRITERS or sees != "clip_vision_model":
        raise BackendError(
            "unsupported-task",
            f"a {model_type} of {sees!r} and {writes!r} is not served yet"[:200],
            f"Served: clip_vision_model with {', '.join(_WRITERS)}.",
        )
    return _WRITERS[writes], _LLAVA_VISION


def part_of(model_type: str, config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One part of a configuration with its defaults. Raises BackendError not-a-model when it is no object."""
    part = config.get(name, {}) if name else config
    if not isinstance(part, Mapping):
        _not_a_model(f"config.json gives no sound {name}")
    tower = next((each for each in _towers_of(model_type, config) if each.part == name), None)
    return {**(tower.defaults if tower else {}), **part}


def check_shapes(model_type: str, config: Mapping[str, Any], shapes: Shapes) -> None:
    """What the configuration would have an engine allocate is what the file holds. Raises BackendError not-a-model."""
    for tower in _towers_of(model_type, config):
        own = {name: shape for name, shape in shapes.items() if not tower.prefix or f".{tower.prefix}" in f".{name}"}
        part = part_of(model_type, config, tower.part)
        _check_tower(tower, part, own, shapes)
        if tower is _LLAVA_VISION:
            _check_places(part, own)


def _check_tower(tower: _Tower, config: dict[str, Any], shapes: Shapes, all_shapes: Shapes) -> None:
    hidden = _count(config, *tower.hidden)
    if tower.embedding:
        vocabulary = _count(config, "vocab_size")
        embedding = next((shape for name, shape in all_shapes.items() if name.endswith(tower.embedding)), None)
        if embedding != (vocabulary, hidden):
            _not_a_model(f"config.json says {vocabulary} x {hidden} embeddings, and the weights have another shape")
    layers = _count(config, *tower.layers)
    found = {_layer_of(name, tower.layer) for name in shapes} - {-1}
    if len(found) != layers or max(found, default=-1) >= layers:  # the numbers are not spelt out: they may be millions
        _not_a_model(f"config.json says {layers} layers, and the weights have {len(found)}")
    intermediate = _intermediate(tower, config, hidden)
    for what, size in (("an intermediate size", intermediate), ("a hidden size", hidden)):
        if not any(size in shape for shape in shapes.values()):
            _not_a_model(f"config.json says {what} of {size}, and no weight has it")


def _check_places(config: dict[str, Any], shapes: Shapes) -> None:
    """An image has so many patches, and each has its place."""
    across = _count(config, "image_size") // _count(config, "patch_size")
    found = next((shape for name, shape in shapes.items() if name.endswith("position_embedding.weight")), None)
    if found != (across**2 + 1, _count(config, "hidden_size")):
        _not_a_model(f"config.json says {across} x {across} patches, and the weights have others")


def _intermediate(tower: _Tower, config: dict[str, Any], hidden: int) -> int:
    if tower.intermediate == ("n_inner",) and config.get("n_inner") is None:  # GPT-2 leaves it to be worked out
        return 4 * hidden
    return _count(config, *tower.intermediate)


def _count(config: Mapping[str, Any], *names: str) -> int:
    value = next((config[name] for name in names if name in config), None)
    if type(value) is not int or not 0 < value < _MOST:
        _not_a_model(f"config.json gives no sound {names[0]}")
    return value


def _layer_of(name: str, called: str) -> int:
    for before, number in itertools.pairwise(name.split(".")):
        if before == called and number.isdecimal() and len(number) <= _MAX_DIGITS:
            return int(number)
    return -1


def _not_a_model(why: str) -> NoReturn:
    raise BackendError("not-a-model", f"this is no model that can be loaded: {why}", "Give a Hugging Face folder.")

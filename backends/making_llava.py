"""Makes small LLaVA and LLaVA-Next models with random weights, laid out as published ones are."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

_TEMPLATE: Final = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_SPECIALS: Final = ("<unk>", "<s>", "</s>", "<pad>", "<image>")


@dataclass(frozen=True)
class TextShape:
    """Of the Llama that writes, by the names of its configuration; small unless said otherwise."""

    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 1024


@dataclass(frozen=True)
class VisionShape:
    """Of the CLIP that sees; `image_size` and `patch_size` in pixels."""

    hidden_size: int = 32
    intermediate_size: int = 64
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    image_size: int = 56
    patch_size: int = 14
    projection_dim: int = 32


@dataclass(frozen=True)
class LlavaShape:
    """`vocab_size` is at least that of the tokenizer, which is made here; `scale` of the random weights."""

    text: TextShape = field(default_factory=TextShape)
    vision: VisionShape = field(default_factory=VisionShape)
    vocab_size: int = 0
    scale: float = 0.2


#: llava-1.5-7b-hf and llava-v1.6-vicuna-7b-hf.
REFERENCE: Final = LlavaShape(
    TextShape(4096, 11_008, 32, 32, 32, 4096), VisionShape(1024, 4096, 24, 16, 336, 14, 768), 32_064, 0.02
)


def make_llava(folder: Path, shape: LlavaShape = LlavaShape(), writes: str = "llama") -> Any:
    """A model of transformers; its tokenizer and processor are in the folder. `writes` is llama or mistral."""
    import transformers

    settings = _settings(shape, writes)
    images = transformers.CLIPImageProcessor(**_sizes(shape.vision.image_size))
    _save_processor("LlavaProcessor", images, settings.pop("tokenizer"), shape, folder)
    return transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(**settings))


def make_llava_next(folder: Path, shape: LlavaShape = LlavaShape(), writes: str = "llama") -> Any:
    """One that sees an image in up to four tiles."""
    import transformers

    settings, side = _settings(shape, writes), shape.vision.image_size
    grids = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    images = transformers.LlavaNextImageProcessor(image_grid_pinpoints=grids, **_sizes(side))
    _save_processor("LlavaNextProcessor", images, settings.pop("tokenizer"), shape, folder)
    config = transformers.LlavaNextConfig(image_grid_pinpoints=grids, **settings)
    return transformers.LlavaNextForConditionalGeneration(config)


def _settings(shape: LlavaShape, writes: str) -> dict[str, Any]:
    import transformers

    tokenizer = _tokenizer()
    vocabulary = max(shape.vocab_size, len(tokenizer))
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "initializer_range": shape.scale}
    kind = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig}[writes]
    window = {"sliding_window": None} if writes == "mistral" else {}
    text = kind(vocab_size=vocabulary, **asdict(shape.text), **ends, **window)
    vision = transformers.CLIPVisionConfig(**asdict(shape.vision), initializer_range=shape.scale)
    return {
        "tokenizer": tokenizer,
        "text_config": text,
        "vision_config": vision,
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": (shape.vision.image_size // shape.vision.patch_size) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def _sizes(side: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _save_processor(kind: str, images: Any, tokenizer: Any, shape: LlavaShape, folder: Path) -> None:
    import transformers

    getattr(transformers, kind)(
        image_processor=images, tokenizer=tokenizer, patch_size=shape.vision.patch_size,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip


def _tokenizer() -> Any:
    """A byte-level tokenizer that puts <s> before a text."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = [*_SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in _SPECIALS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    unknown, begins, ends, pad, image = _SPECIALS
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, bos_token=begins, eos_token=ends, pad_token=pad,
        extra_special_tokens={"image_token": image}, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip

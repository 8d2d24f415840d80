"""Makes models of pictures, sounds and films with random weights, laid out as published ones are.

What such a model computes means nothing, and its folder says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .making_llava import make_llava, make_llava_next
from .making_seq2seq import make_t5, make_whisper
from .making_shapes import TINY, shape_of
from .making_tokenizers import byte_tokenizer, filled, letters
from .weights import mark_random

_SIDE: Final = 32


def make_media_model(folder: Path, model_type: str, seed: int = 0, size: str = TINY) -> Path:
    """A model of one of the types of `_MAKERS`, with its tokenizer and processor."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = _MAKERS[model_type](folder, size).eval()
    model.save_pretrained(folder, safe_serialization=True)
    mark_random(folder, family=model_type, size=size, seed=seed)
    return folder


def _clip(folder: Path, size: str) -> Any:
    import transformers

    text = shape_of("clip text", size, **_small(), **_text(), projection_dim=16)
    vision = shape_of("clip vision", size, **_small(), image_size=_SIDE, patch_size=16, projection_dim=16)
    _write_text_tokenizer(folder, text)
    _write_image_processor(folder, "CLIPImageProcessor", vision["image_size"])
    shape = shape_of("clip", size, projection_dim=16)
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, **shape))


def _xclip(folder: Path, size: str) -> Any:
    import transformers

    text = shape_of("xclip text", size, **_small(64), **_text())
    vision = shape_of(
        "xclip vision", size, **_small(), image_size=_SIDE, patch_size=16, num_frames=8, mit_hidden_size=64,
        mit_intermediate_size=64, mit_num_hidden_layers=1, mit_num_attention_heads=4,
    )  # fmt: skip
    _write_text_tokenizer(folder, text)
    _write_image_processor(folder, "VideoMAEImageProcessor", vision["image_size"])
    shape = shape_of("xclip", size, projection_dim=64, prompt_layers=1, prompt_num_attention_heads=4)
    return transformers.XCLIPModel(transformers.XCLIPConfig(text_config=text, vision_config=vision, **shape))


def _clap(folder: Path, size: str) -> Any:
    import transformers

    text = shape_of("clap text", size, **_small(), vocab_size=0, max_position_embeddings=130, pad_token_id=1)
    audio = shape_of(
        "clap audio", size, patch_embeds_hidden_size=16, depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 8],
        hidden_size=128, num_classes=8, enable_fusion=False,
    )  # fmt: skip
    _write_text_tokenizer(folder, text)
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
    extractor.save_pretrained(folder)
    shape = shape_of("clap", size, projection_dim=32)
    return transformers.ClapModel(transformers.ClapConfig(text_config=text, audio_config=audio, **shape))


def _wav2vec2(folder: Path, size: str) -> Any:
    import transformers

    signs = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (folder / "vocab.json").write_text(json.dumps({sign: place for place, sign in enumerate(signs)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    shape = shape_of(
        "wav2vec2", size, **_small(), conv_dim=(16, 16, 16), conv_stride=(5, 4, 4), conv_kernel=(10, 8, 8),
        num_feat_extract_layers=3, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(vocab_size=len(signs), pad_token_id=0, **shape))


def _videomae(folder: Path, size: str) -> Any:
    import transformers

    shape = shape_of("videomae", size, **_small(), image_size=_SIDE, num_frames=8, labels=7)
    _write_image_processor(folder, "VideoMAEImageProcessor", shape["image_size"])
    labels = {place: f"doing {place}" for place in range(shape.pop("labels"))}
    config = transformers.VideoMAEConfig(
        **shape, id2label=labels, label2id={label: place for place, label in labels.items()}
    )
    return transformers.VideoMAEForVideoClassification(config)


def _videomae_base(folder: Path, size: str) -> Any:
    """As it comes from pretraining: with a decoder that nobody needs."""
    import transformers

    shape = shape_of("videomae", size, **_small(), image_size=_SIDE, num_frames=8)
    shape.pop("labels", None)
    _write_image_processor(folder, "VideoMAEImageProcessor", shape["image_size"])
    decoder = {f"decoder_{name}": size for name, size in _small().items()}
    return transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**shape, **decoder, use_mean_pooling=False))


#: Each gives a model of transformers, and writes all else that belongs into the folder.
_MAKERS: Final[dict[str, Callable[[Path, str], Any]]] = {
    "clip": _clip,
    "clap": _clap,
    "wav2vec2": _wav2vec2,
    "videomae": _videomae,
    "videomae_base": _videomae_base,
    "xclip": _xclip,
    "whisper": make_whisper,
    "t5": make_t5,
    "llava": lambda folder, _size: make_llava(folder),
    "llava_next": lambda folder, _size: make_llava_next(folder),
}


def _small(hidden: int = 32) -> dict[str, int]:
    return {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 4}


def _text() -> dict[str, int]:
    """`vocab_size` 0 is that of the tokenizer."""
    return {"vocab_size": 0, "max_position_embeddings": 77, "bos_token_id": 0, "pad_token_id": 1}


def _write_image_processor(folder: Path, kind: str, side: int) -> None:
    import transformers

    size = {"height": side, "width": side}
    getattr(transformers, kind)(size={"shortest_edge": side}, crop_size=size).save_pretrained(folder)


def _write_text_tokenizer(folder: Path, shape: dict[str, Any]) -> None:
    """A byte-level tokenizer that puts <s> before a text and </s> after it; it completes the shape.

    As CLIP's, </s> has the highest id: some models take the vector of a text from where that is.
    """
    import transformers
    from tokenizers import processors

    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    pieces = [*filled(["<s>", "<pad>", "<unk>", *letters()], shape["vocab_size"] - 1), "</s>"]
    end = len(pieces) - 1
    tokenizer = byte_tokenizer(pieces, list(named.values()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", end)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=77, **named).save_pretrained(
        folder
    )
    shape |= {"vocab_size": len(pieces), "eos_token_id": end}

"""Makes small models of pictures, sounds and films with random weights, laid out as published ones are.

What such a model computes means nothing, and its folder says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .making_llava import make_llava, make_llava_next
from .making_seq2seq import make_t5, make_whisper

WARNING: Final = "Random weights, made locally: what this model computes means nothing.\n"
_SIDE: Final = 32


def make_media_model(folder: Path, model_type: str, seed: int = 0) -> Path:
    """A tiny model of one of the types of `_MAKERS`, with its tokenizer and processor."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = _MAKERS[model_type](folder).eval()
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(WARNING)
    return folder


def _clip(folder: Path) -> Any:
    import transformers

    vocabulary = _write_text_tokenizer(folder)
    _write_image_processor(folder, "CLIPImageProcessor")
    text = {**_small(), "vocab_size": vocabulary, "max_position_embeddings": 77, **_ends(), "projection_dim": 16}
    vision = {**_small(), "image_size": _SIDE, "patch_size": 16, "projection_dim": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config)


def _xclip(folder: Path) -> Any:
    import transformers

    vocabulary = _write_text_tokenizer(folder)
    _write_image_processor(folder, "VideoMAEImageProcessor")
    text = {**_small(64), "vocab_size": vocabulary, "max_position_embeddings": 77, **_ends()}
    vision = {
        **_small(), "image_size": _SIDE, "patch_size": 16, "num_frames": 8, "mit_hidden_size": 64,
        "mit_intermediate_size": 64, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 4,
    }  # fmt: skip
    config = transformers.XCLIPConfig(
        text_config=text, vision_config=vision, projection_dim=64, prompt_layers=1, prompt_num_attention_heads=4
    )
    return transformers.XCLIPModel(config)


def _clap(folder: Path) -> Any:
    import transformers

    vocabulary = _write_text_tokenizer(folder)
    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")
    extractor.save_pretrained(folder)
    text = {**_small(), "vocab_size": vocabulary, "max_position_embeddings": 130, "pad_token_id": 1}
    audio = {
        "patch_embeds_hidden_size": 16, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8],
        "hidden_size": 128, "num_classes": 8, "enable_fusion": False,
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=32)
    return transformers.ClapModel(config)


def _wav2vec2(folder: Path) -> Any:
    import transformers

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    (folder / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(letters)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(letters), **_small(), conv_dim=(16, 16, 16), conv_stride=(5, 4, 4), conv_kernel=(10, 8, 8),
        num_feat_extract_layers=3, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, pad_token_id=0,
    )  # fmt: skip
    return transformers.Wav2Vec2ForCTC(config)


def _videomae(folder: Path) -> Any:
    import transformers

    _write_image_processor(folder, "VideoMAEImageProcessor")
    labels = {place: f"doing {place}" for place in range(7)}
    config = transformers.VideoMAEConfig(
        image_size=_SIDE, num_frames=8, **_small(), id2label=labels,
        label2id={label: place for place, label in labels.items()},
    )  # fmt: skip
    return transformers.VideoMAEForVideoClassification(config)


def _videomae_base(folder: Path) -> Any:
    """As it comes from pretraining: with a decoder that nobody needs."""
    import transformers

    _write_image_processor(folder, "VideoMAEImageProcessor")
    decoder = {f"decoder_{name}": size for name, size in _small().items()}
    config = transformers.VideoMAEConfig(image_size=_SIDE, num_frames=8, **_small(), **decoder, use_mean_pooling=False)
    return transformers.VideoMAEForPreTraining(config)


_MAKERS: Final[dict[str, Callable[[Path], Any]]] = {
    "clip": _clip,
    "clap": _clap,
    "wav2vec2": _wav2vec2,
    "videomae": _videomae,
    "videomae_base": _videomae_base,
    "xclip": _xclip,
    "whisper": make_whisper,
    "t5": make_t5,
    "llava": make_llava,
    "llava_next": make_llava_next,
}


def _small(hidden: int = 32) -> dict[str, int]:
    return {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2, "num_attention_heads": 4}


def _ends() -> dict[str, int]:
    return {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


def _write_image_processor(folder: Path, kind: str) -> None:
    import transformers

    size = {"height": _SIDE, "width": _SIDE}
    getattr(transformers, kind)(size={"shortest_edge": _SIDE}, crop_size=size).save_pretrained(folder)


def _write_text_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer that puts <s> before a text and </s> after it; how many tokens it knows."""
    import transformers
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    specials = list(named.values())
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: place for place, piece in enumerate(pieces)}, []))
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in specials])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=77, **named).save_pretrained(
        folder
    )
    return len(pieces)

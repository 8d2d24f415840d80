"""How large the models are that are made with random weights: tiny, or shaped as a published checkpoint.

The numbers of a published one are those of its `config.json`. `LIKE` names it.
"""

from __future__ import annotations

from typing import Any, Final

TINY: Final = "tiny"
REFERENCE: Final = "reference"
SIZES: Final = (TINY, REFERENCE)

#: family → the checkpoint that one of the size `reference` is shaped as.
LIKE: Final = {
    "bert": "prajjwal1/bert-tiny",
    "sentence": "sentence-transformers/all-MiniLM-L6-v2",
    "clip": "openai/clip-vit-base-patch32",
    "llama": "HuggingFaceTB/SmolLM2-135M",
    "opt": "facebook/opt-125m",
    "gpt2": "openai-community/gpt2",
    "t5": "google/t5-efficient-tiny",
    "whisper": "openai/whisper-tiny",
    "wav2vec2": "facebook/wav2vec2-base-960h",
    "clap": "laion/clap-htsat-unfused",
    "videomae": "MCG-NJU/videomae-base",
    "xclip": "microsoft/xclip-base-patch32",
}
#: family → the sizes that it is made in.
MADE: Final = {**dict.fromkeys(LIKE, SIZES), "llava": (TINY,), "llava_next": (TINY,)}


def _layers(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


#: The families, and the parts of those that have several → the fields that differ from the tiny ones.
_REFERENCE: Final[dict[str, dict[str, Any]]] = {
    "bert": {**_layers(128, 512, 2, 2), "vocab_size": 30_522, "max_position_embeddings": 512},
    "sentence": {**_layers(384, 1536, 6, 12), "vocab_size": 30_522, "max_position_embeddings": 512},
    "llama": {
        **_layers(576, 1536, 30, 9), "num_key_value_heads": 3, "vocab_size": 49_152,
        "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50_257},
    "opt": {
        "hidden_size": 768, "word_embed_proj_dim": 768, "ffn_dim": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 2048, "vocab_size": 50_272,
    },
    "clip": {"projection_dim": 512},
    "clip text": {**_layers(512, 2048, 12, 8), "vocab_size": 49_408, "projection_dim": 512},
    "clip vision": {**_layers(768, 3072, 12, 12), "image_size": 224, "patch_size": 32, "projection_dim": 512},
    "xclip": {"projection_dim": 512, "prompt_layers": 2, "prompt_num_attention_heads": 8},
    "xclip text": {**_layers(512, 2048, 12, 8), "vocab_size": 49_408},
    "xclip vision": {
        **_layers(768, 3072, 12, 12), "image_size": 224, "patch_size": 32, "mit_hidden_size": 512,
        "mit_intermediate_size": 2048, "mit_num_attention_heads": 8,
    },
    "clap": {"projection_dim": 512},
    "clap text": {**_layers(768, 3072, 12, 12), "vocab_size": 50_265, "max_position_embeddings": 514},
    "clap audio": {
        "patch_embeds_hidden_size": 96, "depths": [2, 2, 6, 2], "num_attention_heads": [4, 8, 16, 32],
        "hidden_size": 768, "num_classes": 527,
    },
    "videomae": {**_layers(768, 3072, 12, 12), "image_size": 224, "num_frames": 16, "labels": 400},
    "wav2vec2": {
        **_layers(768, 3072, 12, 12), "conv_dim": (512,) * 7, "conv_stride": (5, 2, 2, 2, 2, 2, 2),
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "num_feat_extract_layers": 7, "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
    },
    "whisper": {
        "d_model": 384, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "encoder_layers": 4, "decoder_layers": 4,
        "encoder_attention_heads": 6, "decoder_attention_heads": 6, "max_source_positions": 1500,
        "max_target_positions": 448, "vocab_size": 51_865, "init_std": 0.02,
    },
    "t5": {
        "d_model": 256, "d_ff": 1024, "d_kv": 64, "num_layers": 4, "num_decoder_layers": 4, "num_heads": 4,
        "vocab_size": 32_128, "initializer_factor": 1.0,
    },
}  # fmt: skip


def shape_of(part: str, size: str, **tiny: Any) -> dict[str, Any]:
    """The configuration's fields of a family, or of a part of it, such as `clip text`."""
    return tiny | (_REFERENCE[part] if size == REFERENCE else {})

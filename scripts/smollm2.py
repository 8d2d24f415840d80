"""From the GGUF file of SmolLM2-135M-Instruct to the Hugging Face folder that it once was.

    python scripts/smollm2.py MODEL.gguf FOLDER

The bytes written depend on the GGUF file alone. Weights become float32: what Q4_1 stands for fits no shorter format.
A GGUF file is input from elsewhere, so this runs as a process of its own, under limits; real_model.py starts it.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, ReaderTensor, dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_MEMORY = 4 << 30
_CPU_S = 300
_CONTROL = 3  # the kind of a token that stands for itself alone, such as <|im_start|>
_PER_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def convert(gguf: Path, folder: Path) -> None:
    reader = GGUFReader(gguf)
    said = {name: field.contents() for name, field in reader.fields.items()}
    if (said["general.architecture"], said["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        raise ValueError(f"{gguf} is no SmolLM2")
    folder.mkdir()
    config = _config(said)
    _write(folder / "config.json", config)
    special = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write(folder / "generation_config.json", special)
    _tokenizer(said).save(str(folder / "tokenizer.json"))
    _write(folder / "tokenizer_config.json", _tokenizer_config(said))
    save_file(dict(_weights(reader, config)), folder / "model.safetensors", metadata={"format": "pt"})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _config(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": said["tokenizer.ggml.bos_token_id"],
        "eos_token_id": said["tokenizer.ggml.eos_token_id"],
        "hidden_act": "silu",
        "hidden_size": said["llama.embedding_length"],
        "intermediate_size": said["llama.feed_forward_length"],
        "max_position_embeddings": said["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": said["llama.attention.head_count"],
        "num_hidden_layers": said["llama.block_count"],
        "num_key_value_heads": said["llama.attention.head_count_kv"],
        "pad_token_id": said["tokenizer.ggml.padding_token_id"],
        "rms_norm_eps": round(said["llama.attention.layer_norm_rms_epsilon"], 12),
        "rope_scaling": None,
        "rope_theta": said["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": len(said["tokenizer.ggml.tokens"]),
    }


def _tokenizer(said: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE over single digits, as llama.cpp's `smollm` splits; nothing is put before a text."""
    tokens: list[str] = said["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in said["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, said["tokenizer.ggml.token_type"], strict=True)
    control = [AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind == _CONTROL]
    tokenizer.add_special_tokens(control)
    return tokenizer


def _tokenizer_config(said: dict[str, Any]) -> dict[str, Any]:
    tokens = said["tokenizer.ggml.tokens"]
    return {
        "add_prefix_space": False,
        "bos_token": tokens[said["tokenizer.ggml.bos_token_id"]],
        "chat_template": said["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[said["tokenizer.ggml.eos_token_id"]],
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": said["llama.context_length"],
        "pad_token": tokens[said["tokenizer.ggml.padding_token_id"]],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[said["tokenizer.ggml.unknown_token_id"]],
    }


def _weights(reader: GGUFReader, config: dict[str, Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        name, kind = _name(tensor)
        weights = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        yield name, np.ascontiguousarray(_unrotate(weights, heads[kind]) if kind in heads else weights)


def _name(tensor: ReaderTensor) -> tuple[str, str]:
    """The tensor's name in transformers, and its kind: `blk.3.attn_q.weight` is one of kind `attn_q`."""
    *place, kind, what = tensor.name.split(".")
    if not place:
        return f"{_OUTSIDE[kind]}.{what}", kind
    return f"model.layers.{int(place[1])}.{_PER_BLOCK[kind]}.{what}", kind


def _unrotate(weights: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """GGUF keeps the two halves that the rotary embedding turns side by side; transformers one after the other."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()

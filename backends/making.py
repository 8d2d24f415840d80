"""Makes models of text with random weights, laid out as published ones are: for tests, and for trying without network.

What such a model computes means nothing, and its folder says so.
"""

from __future__ import annotations

import json
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

from .making_shapes import TINY, shape_of
from .making_tokenizers import byte_tokenizer, filled, letters
from .weights import mark_random

TEXT: Final = ("llama", "gpt2", "opt")
_WORDS: Final = (
    *("the", "a", "of", "and", "to", "in", "is", "was", "this", "cat", "kitten", "dog", "house", "river", "fox"),
    *("quick", "brown", "lazy", "interest", "rates", "rose", "bank", "money", "photo", "hello", "world", "test"),
)
_MOST_TOKENS: Final = 128
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_sentence_model(folder: Path, seed: int = 0, size: str = TINY) -> Path:
    """A BERT for sentence embeddings, in the layout of sentence-transformers."""
    config = _make_bert(folder, "sentence", seed, size)
    longest = config.max_position_embeddings if size == TINY else 256
    _write(folder, "modules.json", _modules())
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    _write(folder, "1_Pooling/config.json", pooling)
    _write(folder, "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    return folder


def make_bert_model(folder: Path, seed: int = 0, size: str = TINY) -> Path:
    """A BERT that says nothing of how its states become a vector."""
    _make_bert(folder, "bert", seed, size)
    return folder


def _make_bert(folder: Path, family: str, seed: int, size: str) -> Any:
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    shape = shape_of(
        family, size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
        max_position_embeddings=_MOST_TOKENS,
    )  # fmt: skip
    shape["vocab_size"] = _write_tokenizer(folder, shape.get("vocab_size", 0), shape["max_position_embeddings"])
    torch.manual_seed(seed)
    config = BertConfig(**shape)
    BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder, safe_serialization=True)
    mark_random(folder, family=family, size=size, seed=seed)
    return config


def make_text_model(folder: Path, model_type: str = "llama", seed: int = 0, size: str = TINY) -> Path:
    """A language model: llama, gpt2 or opt, with a byte-level tokenizer and a chat template."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = _language_model(model_type, size)
    vocabulary = _write_byte_tokenizer(folder, model.config.vocab_size)
    with torch.no_grad():
        # It writes letters alone: half characters would be held back by whoever turns its tokens into text.
        model.get_output_embeddings().weight[_no_letters(vocabulary)] = 0
    model.eval().save_pretrained(folder, safe_serialization=True)
    mark_random(folder, family=model_type, size=size, seed=seed)
    return folder


def _language_model(model_type: str, size: str) -> Any:
    import transformers

    ends = {"vocab_size": len(_text_pieces(0)), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if model_type == "gpt2":
        shape = shape_of("gpt2", size, n_embd=64, n_layer=2, n_head=4, n_positions=512, **ends)
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    layers = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
    if model_type == "opt":
        shape = shape_of("opt", size, word_embed_proj_dim=64, ffn_dim=128, **layers, **ends)
        return transformers.OPTForCausalLM(transformers.OPTConfig(**shape))
    shape = shape_of("llama", size, intermediate_size=128, num_key_value_heads=2, **layers, **ends)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))


def _no_letters(pieces: list[str]) -> list[int]:
    return [token for token, piece in enumerate(pieces) if not (len(piece) == 1 and piece.isascii())]


_SPECIALS: Final = ("<|pad|>", "<|im_start|>", "<|im_end|>")


def _text_pieces(vocabulary: int) -> list[str]:
    return filled([*_SPECIALS, *letters()], vocabulary)


def _write_byte_tokenizer(folder: Path, vocabulary: int) -> list[str]:
    """Its pieces, in the order of their ids."""
    pieces = _text_pieces(vocabulary)
    byte_tokenizer(pieces, _SPECIALS).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|pad|>",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": _CHAT_TEMPLATE,
    }
    _write(folder, "tokenizer_config.json", settings)
    return pieces


def _modules() -> list[dict[str, Any]]:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]


def _write_tokenizer(folder: Path, count: int, longest: int) -> int:
    """How many pieces of words it knows: at least `count`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = _word_pieces(count)
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast", "model_max_length": longest})
    return len(pieces)


def _word_pieces(count: int) -> list[str]:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    signs = [chr(code) for code in range(33, 127)]
    pieces = list(dict.fromkeys([*specials, *signs, *(f"##{sign}" for sign in signs), *_WORDS]))
    fillers = ("".join(three) for three in product(signs[::-1], repeat=4))
    return [*pieces, *islice(fillers, max(0, count - len(pieces)))]


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=1))

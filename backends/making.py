"""Makes small models with random weights, laid out as published ones are: for tests, and for trying without network.

What such a model computes means nothing, and its folder says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

_WORDS: Final = (
    *("the", "a", "of", "and", "to", "in", "is", "was", "this", "cat", "kitten", "dog", "house", "river", "fox"),
    *("quick", "brown", "lazy", "interest", "rates", "rose", "bank", "money", "photo", "hello", "world", "test"),
)
_WARNING: Final = "Random weights, made locally: what this model computes means nothing.\n"
_CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_sentence_model(folder: Path, seed: int = 0, hidden: int = 64, layers: int = 2) -> Path:
    """A BERT of that width and depth for sentence embeddings, in the layout of sentence-transformers."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=hidden * 4,
        max_position_embeddings=128,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(folder, safe_serialization=True)
    _write(folder, "modules.json", _modules())
    _write(folder, "1_Pooling/config.json", {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True})
    _write(folder, "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    (folder / "README.md").write_text(_WARNING)
    return folder


def make_text_model(folder: Path, model_type: str = "llama", seed: int = 0) -> Path:
    """A tiny language model: llama, gpt2 or opt, with a byte-level tokenizer and a chat template."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_byte_tokenizer(folder)
    torch.manual_seed(seed)
    ends = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    make = {
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=512, **ends,
            )
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=512, **ends)
        ),
        "opt": lambda: transformers.OPTForCausalLM(
            transformers.OPTConfig(
                hidden_size=64, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=512, **ends,
            )
        ),
    }  # fmt: skip
    model = make[model_type]().eval()
    with torch.no_grad():
        # It writes letters alone: half characters would be held back by whoever turns its tokens into text.
        model.get_output_embeddings().weight[_no_letters(folder)] = 0
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(_WARNING)
    return folder


def _no_letters(folder: Path) -> list[int]:
    vocabulary: dict[str, int] = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return [token for piece, token in vocabulary.items() if not (len(piece) == 1 and piece.isascii())]


def _write_byte_tokenizer(folder: Path) -> int:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: place for place, piece in enumerate([*specials, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.add_special_tokens([AddedToken(each, special=True) for each in specials])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|pad|>",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "chat_template": _CHAT_TEMPLATE,
    }
    _write(folder, "tokenizer_config.json", settings)
    return len(vocabulary)


def _modules() -> list[dict[str, Any]]:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    return [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]


def _write_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), *_WORDS]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizerFast", "model_max_length": 128})
    return len(vocabulary)


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=1))

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
    (folder / "README.md").write_text("Random weights, made locally: what this model computes means nothing.\n")
    return folder


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

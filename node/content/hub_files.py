"""Which files of a repository on a hub make the model's CID. A rule of names alone, so that everybody gets one CID.

Kept are safetensors, configuration, tokenizer, templates, text and licence, in any folder. Left out are hidden files,
weights of other engines, copies of the weights in another precision, and programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

#: What goes with the weights, by the end of its name.
_KEPT: Final = (".json", ".txt", ".model", ".jinja", ".md", ".tiktoken")
_ALWAYS: Final = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([.-].*)?", re.IGNORECASE)
#: Folders with other engines' forms of the same model.
_OTHER_ENGINES: Final = frozenset({"onnx", "openvino", "original", "coreml", "gguf", "tflite", "flax", "tensorflow"})
_PICKLE: Final = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?")
#: `model.fp16.safetensors` and its shards.
_VARIANT: Final = re.compile(r"\.(fp16|bf16|fp32|int8|fp8|non_ema)(-\d{5}-of-\d{5})?\.safetensors$")


def chosen(names: Iterable[str], *, pickles: bool = False) -> list[str]:
    """The files to download, sorted; with `pickles` also those of PyTorch, where there are no safetensors."""
    every = sorted(name for name in names if _is_plain(name))
    kept = [name for name in every if _is_kept(name)]
    weights = [name for name in every if name.endswith(".safetensors") and not _is_copy(name, every)]
    if not weights and pickles:
        weights = [name for name in every if _PICKLE.fullmatch(name)]
    return sorted({*kept, *weights})


def has_weights(names: Sequence[str]) -> bool:
    return any(name.endswith((".safetensors", ".bin")) for name in names)


def has_pickles(names: Iterable[str]) -> bool:
    return any(_PICKLE.fullmatch(name) for name in names)


def _is_plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    sound = bool(parts) and not name.startswith("/") and "\\" not in name and ".." not in parts
    return sound and not any(part.startswith(".") for part in parts) and not _OTHER_ENGINES & set(parts[:-1])


def _is_kept(name: str) -> bool:
    base = PurePosixPath(name).name
    return (base.endswith(_KEPT) and not _PICKLE.fullmatch(base)) or bool(_ALWAYS.fullmatch(base))


def _is_copy(name: str, every: Sequence[str]) -> bool:
    """The weights once more: in another precision, or joined as their maker uses them."""
    base = PurePosixPath(name).name
    if base.startswith("consolidated"):
        return any(other.startswith("model") and other.endswith(".safetensors") for other in every)
    return bool(_VARIANT.search(name)) and _VARIANT.sub(r"\2.safetensors", name) in every

"""What a model folder is, found out without an engine and without trusting it.

Only safetensors, configuration, tokenizer and text files are ever opened. Everything is checked before anything large
is allocated: sizes against bounds, tensors against their file, shapes against the configuration.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from .families.known import ECHO, MODEL_TYPES, Family, family_of
from .hub_cache import blobs_of
from .interface import BackendError
from .settings import check_counts, check_positions, check_projection
from .shapes import check_shapes, part_of

_MAX_JSON: Final = 64 << 20
_MAX_CONFIG: Final = 1 << 20
_MAX_HEADER: Final = 64 << 20
_MAX_TENSORS: Final = 200_000
_MAX_DIMENSIONS: Final = 16
_DTYPE_SIZES: Final = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
#: What is said of a folder that `unpickling` may help.
PICKLED: Final = "its weights are pickles, which can run code, and are never opened"
#: Beyond the weights themselves: buffers, the engine's own copies, activations.
_MEMORY_FACTOR: Final = 1.5
_MEMORY_BASE: Final = 64 << 20


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors header: its type, shape and size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class ModelFacts:
    """A folder that may be loaded. `memory_bytes` estimates what loading in f32 takes."""

    folder: Path
    model_type: str
    family: Family
    config: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    memory_bytes: int = 0

    @property
    def task(self) -> str:
        return self.family.task

    def part(self, name: str) -> dict[str, Any]:
        """The configuration of one part, such as `text_config`, with what transformers takes for granted."""
        return part_of(self.model_type, self.config, name)


def inspect(folder: Path) -> ModelFacts:
    """Checks a folder.

    Raises:
        BackendError: not-a-model, unsafe-model, unsupported-task.
    """
    config = read_json(folder, "config.json", _MAX_CONFIG)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        _not_a_model("config.json names no model_type")
    for key in ("auto_map", "custom_generate"):
        if key in config:
            raise BackendError(
                "unsafe-model", f"config.json asks for code of its own ({key})", "Such models are never loaded."
            )
    family = family_of(config)
    if family is None:
        raise BackendError(
            "unsupported-task",
            f"models of type {model_type!r} are not served yet",
            f"Served: {', '.join(MODEL_TYPES)}.",
        )
    if family is ECHO:
        return ModelFacts(folder, model_type, family, config)
    tensors = read_tensors(folder)
    check_counts(config, len(tensors))
    check_projection(config, (tensor.shape for tensor in tensors.values()))
    check_positions(model_type, config)
    check_shapes(model_type, config, {name: tensor.shape for name, tensor in tensors.items()})
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return ModelFacts(folder, model_type, family, config, tensors, int(parameters * 4 * _MEMORY_FACTOR) + _MEMORY_BASE)


def read_json(folder: Path, name: str, limit: int = _MAX_JSON) -> dict[str, Any]:
    """A JSON object of the folder. Raises BackendError not-a-model."""
    path = inside(folder, name)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            _not_a_model(f"{name} is no file")
        if path.stat().st_size > limit:
            _not_a_model(f"{name} is over {limit >> 20} MiB")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        _not_a_model(f"it has no {name}")
    except (OSError, ValueError, RecursionError) as error:
        _not_a_model(f"{name} cannot be read ({type(error).__name__})")
    if not isinstance(content, dict):
        _not_a_model(f"{name} holds no object")
    return content


def inside(folder: Path, name: str) -> Path:
    """A file of the folder, never one outside it, whatever the name or a link says.

    In a snapshot of the Hugging Face cache, the cache's own blobs count as inside.
    """
    root, path = folder.resolve(), (folder / name).resolve()
    if root != path and not {root, blobs_of(root)} & {*path.parents}:
        raise BackendError("unsafe-model", f"{name} leads out of the model's folder", "Such models are never loaded.")
    return path


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with the weights, one or as the index lists them. Raises BackendError."""
    if (folder / "model.safetensors").exists():
        return [inside(folder, "model.safetensors")]
    if (folder / "model.safetensors.index.json").exists():
        shards = read_json(folder, "model.safetensors.index.json").get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            _not_a_model("its index of weights is damaged")
        return [inside(folder, name) for name in sorted(set(shards.values()))]
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise BackendError(
            "unsafe-model",
            PICKLED,
            "Save it with safetensors: model.save_pretrained(folder, safe_serialization=True).",
        )
    _not_a_model("it has no model.safetensors")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors by name, from the headers alone. Raises BackendError not-a-model."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        for name, tensor in _read_header(path).items():
            if name in tensors:
                _not_a_model(f"the tensor {name[:60]} is there twice")
            tensors[name] = tensor
    if not tensors:
        _not_a_model("it has no weights")
    return tensors


def _read_header(path: Path) -> dict[str, Tensor]:
    try:
        if path.exists() and not path.is_file():
            _not_a_model(f"{path.name} is no file")
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                _not_a_model(f"{path.name} announces a header of {length} bytes")
            header = json.loads(file.read(length))
    except (OSError, ValueError, struct.error, RecursionError) as error:
        _not_a_model(f"{path.name} cannot be read ({type(error).__name__})")
    if not isinstance(header, dict) or len(header) > _MAX_TENSORS:
        _not_a_model(f"the header of {path.name} is no list of tensors")
    header.pop("__metadata__", None)
    return _check_header(path.name, header, size - 8 - length)


def _check_header(name: str, header: dict[str, Any], data_size: int) -> dict[str, Tensor]:
    """Every tensor lies inside the file, as long as its shape says, and none over another."""
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int]] = []
    for key, entry in header.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            fits = all(type(n) is int and n >= 0 for n in (*shape, begin, end)) and begin <= end <= data_size
            if not fits or len(shape) > _MAX_DIMENSIONS or math.prod(shape) * _DTYPE_SIZES[dtype] != end - begin:
                raise ValueError(key)
        except (KeyError, TypeError, ValueError):
            _not_a_model(f"the tensor {key[:60]!r} of {name} is malformed or lies outside the file")
        tensors[key] = Tensor(dtype, shape, end - begin)
        spans.append((begin, end))
    spans.sort()
    if any(first[1] > second[0] for first, second in itertools.pairwise(spans)):
        _not_a_model(f"tensors of {name} overlap")
    return tensors


def _not_a_model(why: str) -> NoReturn:
    raise BackendError("not-a-model", f"this is no model that can be loaded: {why}", "Give a Hugging Face folder.")

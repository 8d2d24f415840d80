"""The process that reads PyTorch's pickled weights: a folder in, the same weights as safetensors out.

    python -m ipfs_accel_node.backends.unpickle FOLDER TARGET

Pickles can run code. So they are read by torch's restricted reader (`weights_only`), here, where there is no network,
little memory, and nothing to inherit, by a process that ends with this one file. What it finds is told in one line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from .child import end_with_parent, leave_the_network, limit

_MEMORY_FACTOR: Final = 5
_MEMORY_BASE: Final = 6 << 30
_CPU_S: Final = 900
_MOST_TENSORS: Final = 200_000
_PREFIXES: Final = ("state_dict", "model_state_dict")
_EMBEDDING: Final = re.compile(r"(^|\.)(shared|wte|word_embeddings|decoder\.embed_tokens|embed_tokens)\.weight$")


class _RefusedError(Exception):
    pass


def main() -> None:
    folder, target = map(Path, sys.argv[1:3])
    leave_the_network()  # first: a process with threads may not
    end_with_parent()
    try:
        count = _convert(folder, target)
    except _RefusedError as error:
        _end("unsafe-model", str(error))
    except MemoryError:
        _end("too-large", "its weights claim more memory than files of their size need")
    except Exception as error:
        said = " ".join(str(error).split())
        code = "too-large" if "alloc" in said or "memory" in said else "unsafe-model"
        _end(code, f"its weights cannot be read safely: {type(error).__name__}: {said}"[:300])
    sys.stdout.write(json.dumps({"tensors": count}))


def _end(code: str, message: str) -> None:
    sys.stdout.write(json.dumps({"code": code, "message": message}))
    sys.exit(1)


def _convert(folder: Path, target: Path) -> int:
    import torch  # before the limits: a library of hundreds of megabytes is no fault of the file's
    from huggingface_hub import save_torch_state_dict

    files = _files(folder)
    size = sum(path.stat().st_size for path in files)
    _limit(size)
    state: dict[str, Any] = {}
    for path in files:
        state |= _checked(torch.load(path, map_location="cpu", weights_only=True), path.name)
    if len(state) > _MOST_TENSORS or not state:
        raise _RefusedError(f"it has {len(state)} tensors")
    _check_size(state, size)
    whole = {name: _own(tensor) for name, tensor in state.items()}
    save_torch_state_dict(
        whole, target, safe_serialization=True, metadata={"format": "pt"}, shared_tensors_to_discard=_repeated(whole)
    )
    return len(state)


def _own(tensor: Any) -> Any:
    """The tensor in memory of its own: a part of another one would be taken for that one's second name."""
    alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if alone else tensor.contiguous().clone()


def _repeated(state: dict[str, Any]) -> list[str]:
    """Second names of one tensor, which are not written: an embedding is kept, and a head that is tied to it is not."""
    named: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape
        named.setdefault(place, []).append(name)
    repeated: list[str] = []
    for names in named.values():
        kept = min(names, key=lambda name: (not _EMBEDDING.search(name), names.index(name)))
        repeated += [name for name in names if name != kept]
    return repeated


def _files(folder: Path) -> list[Path]:
    """`pytorch_model.bin`, or the shards that its index lists, all in the folder itself."""
    index = folder / "pytorch_model.bin.index.json"
    if index.exists():
        shards = json.loads(index.read_bytes())["weight_map"].values()
        if any(Path(str(name)).name != name for name in shards):
            raise _RefusedError("its index leads out of the folder")
        return [folder / name for name in sorted(set(shards))]
    return [folder / "pytorch_model.bin"]


def _checked(loaded: Any, name: str) -> dict[str, Any]:
    import torch

    for prefix in _PREFIXES:
        if isinstance(loaded, dict) and isinstance(loaded.get(prefix), dict):
            loaded = loaded[prefix]
    if not isinstance(loaded, dict):
        raise _RefusedError(f"{name} holds no weights by name")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            raise _RefusedError(f"{name} holds something besides plain tensors: {key!r}"[:200])
    return loaded


def _check_size(state: dict[str, Any], size: int) -> None:
    """A view may show a few bytes as terabytes: what is written may not be much more than what was read."""
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if total > 4 * size + (64 << 20):
        raise _RefusedError(f"its tensors show {total >> 20} MiB of {size >> 20} MiB")


def _limit(size: int) -> None:
    limit(size * _MEMORY_FACTOR + _MEMORY_BASE, _CPU_S)


if __name__ == "__main__":
    main()

"""Numbers out of a model's JSON files, bounded before anything is made as large or as often as they say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from .interface import BackendError

#: Words in the names of settings that say how many parts are built, one by one.
_COUNTS: Final = ("layers", "depths", "blocks")
_MOST_POSITIONS: Final = 16_384


def whole(said: Mapping[str, Any], name: str, otherwise: int | None, low: int, high: int) -> int:
    """The whole number called `name`, from `low` to `high`. Raises BackendError not-a-model."""
    value = said.get(name, otherwise)
    if type(value) is not int or not low <= value <= high:
        raise BackendError("not-a-model", f"it says {name} is {value!r:.40}, which is not from {low} to {high}")
    return value


def token(said: Mapping[str, Any], name: str, otherwise: Any, vocabulary: int) -> int:
    """A token's id, inside the vocabulary. Raises BackendError not-a-model."""
    return whole(said, name, otherwise, 0, vocabulary - 1)


def tokens(said: Any, name: str, vocabulary: int) -> list[int]:
    """A list of token ids, each inside the vocabulary; none for what is left out. Raises BackendError not-a-model."""
    values = said if isinstance(said, list) else [] if said is None else [said]
    return [token({name: each}, name, None, vocabulary) for each in values]


def check_counts(config: Mapping[str, Any], tensors: int) -> None:
    """No more layers, stages or blocks than there are tensors, whatever part they are said of.

    Each of them has weights, so more cannot be sound; and an engine builds them before it looks for their weights.

    Raises:
        BackendError: not-a-model.
    """
    for name, value in _counts_in(config):
        if value > tensors:
            raise BackendError("not-a-model", f"config.json says {name} is {value}, and there are {tensors} tensors")


def check_projection(config: Mapping[str, Any], shapes: Iterable[tuple[int, ...]]) -> None:
    """What towers are projected to is as wide as some weight. Raises BackendError not-a-model."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    sizes = {part["projection_dim"] for part in parts if type(part.get("projection_dim")) is int}
    if unknown := sizes - {size for shape in shapes for size in shape}:
        raise BackendError("not-a-model", f"config.json says projection_dim is {min(unknown)}, and no weight has that")


def check_positions(model_type: str, config: Mapping[str, Any]) -> None:
    """VideoMAE's positions are worked out one by one in Python when it is built. Raises BackendError not-a-model."""
    if model_type != "videomae":
        return
    side = whole(config, "image_size", 224, 1, 4096) // whole(config, "patch_size", 16, 1, 4096)
    steps = whole(config, "num_frames", 16, 1, 4096) // whole(config, "tubelet_size", 2, 1, 4096)
    if not 0 < side * side * steps <= _MOST_POSITIONS:
        raise BackendError("not-a-model", f"its videos have {side * side * steps} patches; 1 to {_MOST_POSITIONS}")


def _counts_in(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """A few levels deep, as far as configurations go."""
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, Mapping) and depth < 4:
            waiting += [(str(key), each, depth + 1) for key, each in value.items()]
        elif any(word in name for word in _COUNTS):
            numbers = value if isinstance(value, list) else [value]
            yield from ((name, each) for each in numbers if type(each) is int)

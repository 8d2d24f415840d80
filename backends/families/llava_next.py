"""LLaVA-Next: an image is seen as a whole, and in tiles of the grid that fits it best ("any resolution").

image ─► whole, squeezed into a square ──────────────────────────► its patches
     └─► scaled into the best grid, black around it ─► tiles ─► patches without those that are all black,
                                                                 a newline after each line of them
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError
from ..loading import ModelFacts, read_json
from .llava import Embeds, LlavaModel, Shown
from .stages import Stages

_MOST_GRIDS: Final = 64
#: Tiles of one image, the whole not counted.
MOST_TILES: Final = 36
_DEFAULT_GRIDS: Final = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))

Size = tuple[int, int]


class LlavaNextModel(LlavaModel):
    """Stages: as `LlavaModel`'s, and `see` gives what ends a line of patches [hidden] as well."""

    def __init__(self, facts: ModelFacts, stages: Stages, details: dict[str, Any], precision: str, memory: int) -> None:
        super().__init__(facts, stages, details, precision, memory)
        if self._patches != self._across**2:
            raise BackendError("not-a-model", "it selects features in a way that is not served", "Served: default.")
        self._grids = _grids(facts, self._side)

    def tiles_of(self, image: Any) -> Shown:
        grid = best_grid((image.height, image.width), self._grids)
        if grid is None:
            raise BackendError("bad-input", f"an image of {image.width} x {image.height} fits no grid", "Crop it.")
        whole = image.resize((self._side, self._side), resample=self._steps.resample)
        tiles = [whole, *_cut(_padded(image, grid, self._steps.resample), self._side)]
        high, wide, _, _ = self._kept(image.size)
        tokens = self._patches + high * (wide + 1)
        return Shown(np.stack([self._steps.apply(tile) for tile in tiles]), tokens, image.size)

    def joined(self, image: Shown, features: list[NDArray[np.float32]]) -> Embeds:
        whole, *tiles = features[0]
        newline = features[1]
        high, wide, top, left = self._kept(image.size)
        rows, columns = self._grid(image.size)
        across, hidden = self._across, newline.shape[-1]
        picture = np.stack(tiles).reshape(rows, columns, across, across, hidden)
        picture = picture.transpose(0, 2, 1, 3, 4).reshape(rows * across, columns * across, hidden)
        lines = picture[top : top + high, left : left + wide]
        ended = np.concatenate([lines, np.broadcast_to(newline, (high, 1, hidden))], axis=1)
        return np.concatenate([whole, ended.reshape(-1, hidden)])

    def _grid(self, size: Size) -> Size:
        """Tiles: rows and columns."""
        width, height = size
        grid = best_grid((height, width), self._grids) or self._grids[0]
        return grid[0] // self._side, grid[1] // self._side

    def _kept(self, size: Size) -> tuple[int, int, int, int]:
        """Of the patches of all tiles, those that are not all black: how many high and wide, from which on."""
        width, height = size
        rows, columns = self._grid(size)
        high, wide = rows * self._across, columns * self._across
        top = left = 0
        if width / height > wide / high:
            top = (high - int(round(height * (wide / width), 7))) // 2
        else:
            left = (wide - int(round(width * (high / height), 7))) // 2
        return high - 2 * top, wide - 2 * left, top, left


def best_grid(size: Size, grids: list[Size]) -> Size | None:
    """The (height, width) that shows most of an image of `size` (height, width), and wastes least; None for none."""
    best, most, least = None, 0, math.inf
    height, width = size
    for grid_height, grid_width in grids:
        scale = min(grid_width / width, grid_height / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid_height * grid_width - shown
        if shown > most or (shown == most and wasted < least):
            best, most, least = (grid_height, grid_width), shown, wasted
    return best if most else None


def _padded(image: Any, grid: Size, resample: int) -> Any:
    from PIL import Image

    across, down = grid[1] / image.width, grid[0] / image.height
    if across < down:
        width, height = grid[1], min(math.ceil(image.height * across), grid[0])
    else:
        width, height = min(math.ceil(image.width * down), grid[1]), grid[0]
    canvas = Image.new("RGB", (grid[1], grid[0]))
    resized = image.resize((width, height), resample=resample)
    canvas.paste(resized, ((grid[1] - width) // 2, (grid[0] - height) // 2))
    return canvas


def _cut(image: Any, side: int) -> list[Any]:
    return [
        image.crop((left, top, left + side, top + side))
        for top in range(0, image.height, side)
        for left in range(0, image.width, side)
    ]


def _grids(facts: ModelFacts, side: int) -> list[Size]:
    """As config.json says, which the preprocessor must not contradict. Raises BackendError not-a-model."""
    said = facts.config.get("image_grid_pinpoints") or [list(each) for each in _DEFAULT_GRIDS]
    other = read_json(facts.folder, "preprocessor_config.json").get("image_grid_pinpoints", said)
    sound = isinstance(said, list) and 0 < len(said) <= _MOST_GRIDS and all(_is_grid(each, side) for each in said)
    if not sound or other != said:
        raise BackendError(
            "not-a-model", "its image_grid_pinpoints are no grids of its tiles", f"Up to {MOST_TILES} tiles are served."
        )
    return [(height, width) for height, width in said]


def _is_grid(said: Any, side: int) -> bool:
    if not isinstance(said, list) or len(said) != 2 or not all(type(each) is int and each > 0 for each in said):
        return False
    height, width = said
    return bool(height % side == width % side == 0 and height * width <= MOST_TILES * side * side)


MODEL: Final = LlavaNextModel

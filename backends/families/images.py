"""Images as jobs bring them, and the steps that a folder's `preprocessor_config.json` says, as transformers does them.

An image is an encoded file (bytes: PNG, JPEG, WebP, GIF or BMP) or an array of uint8: [height, width], or with 1, 3
or 4 channels last. Sizes are looked at before anything is decoded.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..interface import BackendError
from ..loading import read_json

MAX_PIXELS: Final = 64_000_000
MAX_SIDE: Final = 32_768
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_MAX_SETTING: Final = 4096
_BICUBIC: Final = 3

Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class ImageSteps:
    """How an image becomes float32 [channels, height, width]; `shortest` or `size` (height, width) to resize to."""

    shortest: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    scale: float | None
    mean: NDArray[np.float32] | None
    std: NDArray[np.float32] | None

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) that every image comes to; None where it depends on the image."""
        return self.crop or self.size

    def apply(self, image: Any) -> Pixels:
        """`image` a `PIL.Image` in RGB."""
        pixels = np.asarray(self._resized(image))
        if self.crop is not None:
            pixels = _cropped(pixels, *self.crop)
        values = pixels.astype(np.float32) if self.scale is None else (pixels * self.scale).astype(np.float32)
        if self.mean is not None and self.std is not None:
            values = (values - self.mean) / self.std
        return np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)

    def _resized(self, image: Any) -> Any:
        width, height = image.size
        if self.size is not None:
            target = self.size[1], self.size[0]
        elif self.shortest is not None:
            short, long = min(width, height), max(width, height)
            other = min(int(self.shortest * long / short), MAX_SIDE)
            target = (self.shortest, other) if width <= height else (other, self.shortest)
        else:
            return image
        return image if target == image.size else image.resize(target, resample=self.resample)


def read_steps(folder: Path) -> ImageSteps:
    """Raises BackendError not-a-model for a preprocessor_config.json that says what is not understood."""
    said = read_json(folder, "preprocessor_config.json")
    shortest, size = _size(said.get("size")) if said.get("do_resize", True) else (None, None)
    _, crop = _size(said.get("crop_size")) if said.get("do_center_crop", False) else (None, None)
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else None
    normalizes = said.get("do_normalize", True)
    mean, std = (_channels(said, name) if normalizes else None for name in ("image_mean", "image_std"))
    resample = said.get("resample", _BICUBIC)
    if resample not in range(6) or (scale is not None and not 0 < scale <= 1):
        _not_understood("resample or rescale_factor")
    return ImageSteps(shortest, size, crop, int(resample), scale, mean, std)


def open_image(value: Any) -> Any:
    """A `PIL.Image` in RGB, upright as its EXIF data says. Raises BackendError bad-input, too-large."""
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if not isinstance(value, (bytes, bytearray)):
        raise BackendError(
            "bad-input", f"a {type(value).__name__} is no image", "Give the bytes of a PNG or JPEG file."
        )
    return _decoded(bytes(value))


def images_of(inputs: Any, most: int) -> list[Any]:
    """One image, or a list of at most `most`, opened. Raises BackendError bad-input, too-large."""
    values = inputs if isinstance(inputs, list) else [inputs]
    if not values or len(values) > most:
        raise BackendError("too-large" if values else "bad-input", f"{len(values)} images; 1 to {most} at once", "")
    return [open_image(value) for value in values]


def _decoded(data: bytes) -> Any:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            check_size(*image.size)
            return _in_rgb(ImageOps.exif_transpose(image) or image)
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(
            "bad-input", f"the image cannot be decoded: {error}"[:200], f"Formats: {', '.join(_FORMATS)}."
        ) from None


def _in_rgb(image: Any) -> Any:
    """What is transparent is dropped as transformers drops it; 16 bits a channel are brought to 8."""
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        from PIL import Image

        values = np.asarray(image, dtype=np.float64)
        if image.mode != "F" or values.max(initial=0) > 255:
            values = values / 257
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _of_array(array: NDArray[Any]) -> Any:
    from PIL import Image

    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise BackendError(
            "bad-input",
            f"an array of {array.dtype} {list(array.shape)} is no image",
            "Give uint8 [height, width], or [height, width, channels] with 1, 3 or 4 channels.",
        )
    check_size(array.shape[1], array.shape[0])
    return Image.fromarray(array.squeeze(2) if array.ndim == 3 and channels == 1 else array).convert("RGB")


def check_size(width: int, height: int) -> None:
    """Raises BackendError too-large."""
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE or width * height > MAX_PIXELS:
        raise BackendError(
            "too-large", f"the image has {width} x {height} pixels", f"At most {MAX_PIXELS // 10**6} million."
        )


def _cropped(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The middle, with black around it where the image is smaller (transformers' center_crop)."""
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    padded_height, padded_width = max(height, pixels.shape[0]), max(width, pixels.shape[1])
    padded = np.zeros((padded_height, padded_width, pixels.shape[2]), pixels.dtype)
    down, right = math.ceil((padded_height - pixels.shape[0]) / 2), math.ceil((padded_width - pixels.shape[1]) / 2)
    padded[down : down + pixels.shape[0], right : right + pixels.shape[1]] = pixels
    top, left = top + down, left + right
    return padded[max(0, top) : top + height, max(0, left) : left + width]


def _size(said: Any) -> tuple[int | None, tuple[int, int] | None]:
    """(shortest edge, None) or (None, (height, width)), in each form that published folders have."""
    if type(said) is int:
        return _edge(said), (said, said)
    if isinstance(said, dict) and "shortest_edge" in said:
        return _edge(said["shortest_edge"]), None
    if isinstance(said, dict) and {"height", "width"} <= set(said):
        return None, (_edge(said["height"]), _edge(said["width"]))
    _not_understood("size or crop_size")


def _edge(value: Any) -> int:
    if type(value) is not int or not 0 < value <= _MAX_SETTING:
        _not_understood("size or crop_size")
    return value


def _channels(said: dict[str, Any], name: str) -> NDArray[np.float32]:
    values: Any = said.get(name)
    sound = isinstance(values, list) and len(values) == 3 and all(type(each) in (int, float) for each in values)
    if not sound or (name == "image_std" and not all(each > 0 for each in values)):
        _not_understood(name)
    return np.array(values, np.float32)


def _not_understood(what: str) -> NoReturn:
    raise BackendError("not-a-model", f"its preprocessor_config.json gives no {what} that is understood")

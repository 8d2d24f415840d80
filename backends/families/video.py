"""Video as jobs bring it: so many frames, evenly spread, as `PIL.Image` in RGB.

A video is an encoded file (bytes: MP4, WebM, MKV, AVI or GIF), uint8 [frames, height, width, 3], or a list of images.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ..interface import BackendError
from .images import check_size, open_image

MAX_SECONDS: Final = 600.0
MAX_FRAMES: Final = 20_000


def open_video(value: Any, frames: int) -> list[Any]:
    """`frames` images; a video with fewer has some of them more than once. Raises BackendError bad-input, too-large."""
    if isinstance(value, (bytes, bytearray)):
        return _decoded(bytes(value), frames)
    given = list(value) if isinstance(value, np.ndarray) and value.ndim == 4 else value
    if not isinstance(given, list) or not given:
        raise BackendError("bad-input", f"a {type(value).__name__} is no video", "Give a file's bytes, or its frames.")
    _check_count(len(given))
    opened = {place: open_image(given[place]) for place in set(places(len(given), frames))}
    return [opened[place] for place in places(len(given), frames)]


def places(count: int, wanted: int) -> list[int]:
    """Which of `count` frames are looked at: evenly spread from the first to the last, as transformers samples them."""
    return [int(place) for place in np.linspace(0, count - 1, num=wanted, dtype=np.int64)]


def _decoded(data: bytes, frames: int) -> list[Any]:
    import av

    try:
        with av.open(io.BytesIO(data), mode="r") as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise BackendError("bad-input", "the file has no video in it", "Give a video file.")
            check_size(stream.width, stream.height)
            count = _count(data)
        wanted = places(count, frames)
        with av.open(io.BytesIO(data), mode="r") as container:
            images = dict(_frames(container, set(wanted)))
        return [images[place] for place in wanted]
    except BackendError:
        raise
    except Exception as error:
        raise BackendError("bad-input", f"the video cannot be decoded: {error}"[:200], "MP4 and WebM are.") from None


def _count(data: bytes) -> int:
    """By decoding: what a container says of its length may be wrong, or missing."""
    import av

    with av.open(io.BytesIO(data), mode="r") as container:
        count = 0
        for frame in container.decode(video=0):
            count += 1
            _check_count(count)
            check_size(frame.width, frame.height)
            if frame.time is not None and frame.time > MAX_SECONDS:
                raise BackendError("too-large", "the video is too long", f"At most {MAX_SECONDS:.0f} s at once.")
    if not count:
        raise BackendError("bad-input", "the video has no frames", "Give at least one.")
    return count


def _frames(container: Any, wanted: set[int]) -> Iterator[tuple[int, Any]]:
    for place, frame in enumerate(container.decode(video=0)):
        if place in wanted:
            yield place, frame.to_image()


def _check_count(count: int) -> None:
    if count > MAX_FRAMES:
        raise BackendError("too-large", f"the video has over {MAX_FRAMES} frames", "Cut it, or send fewer frames.")

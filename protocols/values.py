"""Plain values with arrays in them, as one msgpack document: the inputs and results of jobs.

Values are None, bool, int, float, str, bytes, list, dict with str keys, and `Array`. An array is msgpack
extension 1, itself `[dtype, [dim, …], little-endian bytes in C order]`, so that passing one on needs no library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from .errors import ErrorCode, ProtocolError
from .framing import LEAVES, MAX_DEPTH, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DIMENSIONS: Final = 8
#: Lists and maps in one value; numbers in bulk travel as arrays.
MAX_CONTAINERS: Final = 1 << 20
#: What one of them may hold; eight things in lists count as much as one list.
_LONGEST: Final = 1 << 22
#: Bytes of a value that cannot have many more of them.
_UNCOUNTED: Final = 1 << 20
_ARRAY: Final = 1

#: Bytes an element.
ITEM_SIZES: Final = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Array:
    """A dense array: `dtype` one of `ITEM_SIZES`, `data` its elements in C order, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        if self.dtype not in ITEM_SIZES:
            raise ProtocolError(f"unknown array type {self.dtype!r}")
        if len(self.shape) > MAX_DIMENSIONS or any(type(n) is not int or n < 0 for n in self.shape):
            raise ProtocolError("an array's shape is no list of at most eight sizes")
        expected = math.prod(self.shape) * ITEM_SIZES[self.dtype]
        if expected != len(self.data):
            raise ProtocolError(f"an array of shape {self.shape} needs {expected} bytes, not {len(self.data)}")

    @staticmethod
    def from_numpy(array: NDArray[Any]) -> Array:
        """Raises ProtocolError for a type that does not travel, such as object."""
        import numpy as np

        name = array.dtype.newbyteorder("=").name
        if name not in ITEM_SIZES:
            raise ProtocolError(f"arrays of {array.dtype} do not travel")
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        return Array(name, tuple(int(n) for n in array.shape), little.tobytes())

    def to_numpy(self) -> NDArray[Any]:
        """A fresh, writable array of the same shape."""
        import numpy as np

        kind: np.dtype[Any] = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(self.data, dtype=kind).reshape(self.shape).astype(self.dtype, copy=True)


_LEAVES: Final = LEAVES | {Array}


def pack(value: Any) -> bytes:
    """Raises ProtocolError for a value that does not travel; numpy arrays and scalars do."""
    _check_keys(value, MAX_DEPTH)
    try:
        packed: bytes = msgpack.packb(value, default=_pack_other, use_bin_type=True)
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError(f"the value cannot be sent: {error}", "bad-input") from None
    return packed


def unpack(data: bytes) -> Any:
    """Raises ProtocolError for anything but one whole value of the types above."""
    bounds = _bounds() if len(data) > _UNCOUNTED else {}
    try:
        value = msgpack.unpackb(data, raw=False, strict_map_key=True, ext_hook=_unpack_array, **bounds)
    except ProtocolError:
        raise
    except Exception as error:
        raise ProtocolError(f"malformed value ({type(error).__name__})") from None
    check(value, _LEAVES)
    return value


def _bounds() -> dict[str, Any]:
    """Counts lists and maps while they are unpacked: an empty one takes a byte on the wire and 64 in memory."""
    left = MAX_CONTAINERS

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1 + len(container) // 8
        if left < 0:
            raise ProtocolError(f"a value has over {MAX_CONTAINERS} lists and maps, or too much in them")
        return container

    return {"list_hook": count, "object_hook": count, "max_array_len": _LONGEST, "max_map_len": _LONGEST}


def map_arrays(value: Any) -> Any:
    """The same value with every `Array` in it as a numpy array."""
    if isinstance(value, Array):
        return value.to_numpy()
    if isinstance(value, list):
        return [map_arrays(each) for each in value]
    if isinstance(value, dict):
        return {key: map_arrays(each) for key, each in value.items()}
    return value


def _check_keys(value: Any, levels: int) -> None:
    """What would be refused where it arrives is refused here, where it can be mended."""
    if isinstance(value, dict) and not all(type(key) is str for key in value):
        raise ProtocolError("a map has a key that is no text", ErrorCode.BAD_INPUT)
    if isinstance(value, (dict, list, tuple)):
        if levels < 0:
            raise ProtocolError(f"values are nested deeper than {MAX_DEPTH}", ErrorCode.BAD_INPUT)
        for each in value.values() if isinstance(value, dict) else value:
            if isinstance(each, (dict, list, tuple)):
                _check_keys(each, levels - 1)


def _pack_other(value: Any) -> Any:
    if isinstance(value, Array):
        inner = msgpack.packb((value.dtype, value.shape, value.data), use_bin_type=True)
        return msgpack.ExtType(_ARRAY, inner)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return value.item() if value.shape == () else _pack_other(Array.from_numpy(value))
    raise ProtocolError(f"a {type(value).__name__} does not travel", "bad-input")


def _unpack_array(code: int, data: bytes) -> Array:
    if code != _ARRAY:
        raise ProtocolError(f"unknown extension {code}")
    fields = msgpack.unpackb(data, raw=False, strict_map_key=True)
    if not isinstance(fields, list) or len(fields) < 3:
        raise ProtocolError("malformed array")
    dtype, shape, content = fields[:3]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(content, bytes):
        raise ProtocolError("malformed array")
    return Array(dtype, tuple(shape), content)

"""Copies files while hashing them: one thread reads and writes, another hashes, a few chunks apart.

      read ─► write ─┬─► hash ─► digests in order
                     └─► every few MiB the disk begins to write, so that the sync at the end has little to wait for

Hashing and copying take turns in no interpreter lock, as both leave it. Memory is a few chunks, whatever the size.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from .disk import begin_writeback, clone

Hash = Callable[[memoryview], bytes]

_AHEAD: Final = 4
_WRITE_BACK_EVERY: Final = 8 << 20


def sha256(chunk: memoryview) -> bytes:
    return hashlib.sha256(chunk).digest()


class Copier:
    """Gives a file's chunks as digests, and puts a copy of it somewhere on the way. Use it in a `with` block."""

    def __init__(self, chunk: int) -> None:
        """`chunk` is the bytes of every chunk of a file but its last."""
        self._chunk = chunk
        self._buffers = [memoryview(bytearray(chunk)) for _ in range(_AHEAD)]
        self._hashing = ThreadPoolExecutor(1, "hashing")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hashing.shutdown()

    def digests(self, real: Path, target: Path | None, digest: Hash = sha256) -> Iterator[tuple[bytes, int]]:
        """(digest, bytes) of each chunk, in order; one empty chunk for an empty file.

        The copy goes to `target`, which must not be there; a copy that is a clone is what is read. Raises OSError.
        """
        with real.open("rb", buffering=0) as source:
            if target is None:
                yield from self._hashed(source, None, digest)
                return
            with target.open("x+b", buffering=0) as copy:
                if clone(source.fileno(), copy.fileno()):
                    yield from self._hashed(copy, None, digest)
                else:
                    yield from self._hashed(source, copy, digest)

    def _hashed(self, source: BinaryIO, copy: BinaryIO | None, digest: Hash) -> Iterator[tuple[bytes, int]]:
        """A buffer is read into again when the chunk that was in it is hashed."""
        waiting: deque[tuple[Future[bytes], int]] = deque()
        try:
            for chunk in self._chunks(source, copy):
                waiting.append((self._hashing.submit(digest, chunk), len(chunk)))
                if len(waiting) == _AHEAD:
                    yield _next_of(waiting)
            while waiting:
                yield _next_of(waiting)
        finally:
            for future, _ in waiting:
                future.cancel()

    def _chunks(self, source: BinaryIO, copy: BinaryIO | None) -> Iterator[memoryview]:
        number, begun = 0, 0
        while (size := _fill(source, buffer := self._buffers[number % _AHEAD])) or not number:
            if copy is not None:
                _write_all(copy, buffer[:size])
                if (end := number * self._chunk + size) - begun >= _WRITE_BACK_EVERY:
                    begin_writeback(copy.fileno(), begun, end - begun)
                    begun = end
            yield buffer[:size]
            number += 1
            if size < self._chunk:
                return


def _next_of(waiting: deque[tuple[Future[bytes], int]]) -> tuple[bytes, int]:
    future, size = waiting.popleft()
    return future.result(), size


def _fill(source: BinaryIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (count := source.readinto(view[filled:])):  # type: ignore[attr-defined]
        filled += count
    return filled


def _write_all(copy: BinaryIO, chunk: memoryview) -> None:
    written = 0
    while written < len(chunk):
        written += copy.write(chunk[written:])

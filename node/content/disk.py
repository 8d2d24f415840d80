"""What the store needs of a file system: whole writes, syncing, cloning, free space, errors with codes."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from ...protocols.errors import AccelError, ErrorCode

OnProgress = Callable[[str, int, int], None]

#: Disk space that is left alone, in bytes.
SPARE: Final = 64 << 20
#: `ioctl(target, FICLONE, source)` of linux/fs.h: both files share their extents until one is written to.
_FICLONE: Final = 0x40049409


@contextmanager
def coded_errors() -> Iterator[None]:
    """Gives what the file system refuses a code that a person can act on."""
    try:
        yield
    except OSError as error:
        raise _coded(error) from error


def _coded(error: OSError) -> AccelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return AccelError(ErrorCode.DISK_FULL, f"the disk is full: {error}", "Make room and try again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccelError(ErrorCode.PERMISSION_DENIED, str(error), "Check who owns these files.")
    if error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
        return AccelError(ErrorCode.BAD_CONFIG, str(error), "A file stands where a folder belongs, or the reverse.")
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return AccelError(ErrorCode.BAD_INPUT, f"{error.strerror}: {str(error.filename)[:60]}…", "Give another path.")
    return AccelError(ErrorCode.INTERNAL, f"the disk failed: {error}", "See the node's log; check the disk.")


def write_whole(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Writes aside and renames, so that a reader and a crash see the old file or the new one."""
    aside = path.with_name(f"{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if synced:
        sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Puts every file and folder in it on disk for good."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clone(source: int, target: int) -> bool:
    """Makes the file `target` share the blocks of `source`, where the file system can (btrfs, XFS, bcachefs)."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def can_clone(source: Path, folder: Path) -> bool:
    """Whether files like `source` can be cloned into `folder`; tried with that very file."""
    probe = folder / f"{uuid4().hex}.tmp"
    with source.open("rb") as original, probe.open("xb") as copy:
        try:
            return clone(original.fileno(), copy.fileno())
        finally:
            probe.unlink()


def read_at(path: Path, offset: int, length: int) -> bytes:
    """At most `length` bytes; never through a symbolic link. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def write_at(path: Path, offsets: Sequence[int], block: bytes | memoryview, *, write_back: bool = False) -> None:
    """Writes all of `block` at each of the offsets into a file that is there; never through a symbolic link.

    Zeros are not written where nothing ever was, so a sparse file stays one. With `write_back` the disk begins to
    write at once. Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        zeros = len(offsets) > 1 and block == bytes(len(block))
        for offset in offsets:
            if not (zeros and _is_hole(descriptor, offset, len(block))):
                _write_all(descriptor, offset, block)
                if write_back:
                    begin_writeback(descriptor, offset, len(block))
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, offset: int, block: bytes | memoryview) -> None:
    written = os.pwrite(descriptor, block, offset)
    while written < len(block):
        written += os.pwrite(descriptor, memoryview(block)[written:], offset + written)


def is_hole(path: Path, offset: int, length: int) -> bool:
    """Whether nothing was ever written there, so that it reads as zeros. False where that cannot be told."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _is_hole(descriptor, offset, length)
    finally:
        os.close(descriptor)


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Has the system begin to put these bytes on the disk, so that a sync at the end has less to wait for.

    Linux takes "they are not needed" as a reason to write those that are not written, and keeps them.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)

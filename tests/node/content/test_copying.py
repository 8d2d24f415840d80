"""Copying while hashing: digests and bytes as a plain loop gives them, and an end to every error."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.copying import Copier

CHUNK = 1000


@settings(deadline=None)
@given(st.integers(0, 12 * CHUNK), st.booleans())
def test_digests_and_copy_are_those_of_a_plain_loop(tmp_path_factory, size, copies):
    folder = tmp_path_factory.mktemp("copy")
    data = bytes(number * 31 % 251 for number in range(size))
    (folder / "real").write_bytes(data)
    target = folder / "copy" if copies else None
    with Copier(CHUNK) as copier:
        got = list(copier.digests(folder / "real", target))
    chunks = [data[at : at + CHUNK] for at in range(0, size, CHUNK)] or [b""]
    assert got == [(hashlib.sha256(chunk).digest(), len(chunk)) for chunk in chunks]
    assert not copies or (folder / "copy").read_bytes() == data


def test_files_follow_each_other_whatever_became_of_the_last_one(tmp_path):
    (tmp_path / "first").write_bytes(bytes(20 * CHUNK))
    (tmp_path / "second").write_bytes(b"second")
    with Copier(CHUNK) as copier:
        half = copier.digests(tmp_path / "first", None)
        next(half)
        half.close()
        assert list(copier.digests(tmp_path / "second", None)) == [(hashlib.sha256(b"second").digest(), 6)]


def test_an_error_ends_it_and_no_thread_stays(tmp_path):
    (tmp_path / "real").write_bytes(bytes(20 * CHUNK))
    (tmp_path / "there").write_bytes(b"")
    before = threading.active_count()
    with Copier(CHUNK) as copier:
        with pytest.raises(FileExistsError):
            list(copier.digests(tmp_path / "real", tmp_path / "there"))
        with pytest.raises(ZeroDivisionError):
            list(copier.digests(tmp_path / "real", tmp_path / "copy", lambda chunk: bytes(1 // 0)))
    assert threading.active_count() == before

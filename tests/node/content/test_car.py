"""CAR files: what is written is read, in any order; what is cut, changed or made up is refused with a code."""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
from pathlib import Path

import cbor2
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content import car_source
from ipfs_accel_node.node.content.car import CarReader, encode_header, encode_section
from ipfs_accel_node.node.content.car_source import CarSource, import_car, keep_stream, read_index
from ipfs_accel_node.node.content.cid import RAW, format_cid, make_cid
from ipfs_accel_node.node.content.fetch import Fetcher
from ipfs_accel_node.node.content.store import ModelStore, Origin
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "empty.txt").touch()
    (folder / "weights").write_bytes(random.Random(1).randbytes(3 * MIB + 17))
    (folder / "deep" / "again").write_bytes((folder / "weights").read_bytes()[:MIB])
    return folder


@pytest.fixture
def store(tmp_path, model) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    store.add(model, name="mine")
    return store


@pytest.fixture
def car(store, tmp_path) -> Path:
    path = tmp_path / "mine.car"
    assert store.export(store.resolve("mine").cid_bytes, path) == path.stat().st_size
    return path


def take_in(store, path, **options):
    return trio.run(lambda: import_car(Fetcher(store), path, **options))


def blocks_of(path: Path) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    with path.open("rb") as stream:
        reader = CarReader(stream)
        return reader.roots, [(section.cid, reader.read(section)) for section in reader.sections()]


def write(path: Path, roots, blocks) -> Path:
    path.write_bytes(encode_header(roots) + b"".join(encode_section(cid, block) for cid, block in blocks))
    return path


def version_2(one: bytes) -> bytes:
    pragma = counted({"version": 2})
    header = bytes(16) + (len(pragma) + 40 + 13).to_bytes(8, "little") + len(one).to_bytes(8, "little") + bytes(8)
    return pragma + header + bytes(13) + one + b"an index that nobody reads"


def test_what_is_exported_is_every_block_once_the_root_first(store, car):
    roots, blocks = blocks_of(car)
    model = store.resolve("mine")
    assert roots == [model.cid_bytes]
    assert blocks[0][0] == model.cid_bytes
    assert len({cid for cid, _ in blocks}) == len(blocks)
    assert all(make_cid(cid[1], block) == cid for cid, block in blocks)
    assert len(blocks) == 1 + 1 + 4 + 1 + 1 + 2, "folder, file node, its leaves, config, empty file, two folders"


@pytest.mark.parametrize("version", [1, 2])
def test_what_was_exported_is_imported(car, tmp_path, store, version):
    if version == 2:
        car.write_bytes(version_2(car.read_bytes()))
    other, told = ModelStore(tmp_path / "other"), []
    origin = Origin("", "apache-2.0", True)
    report = take_in(other, car, name="theirs", origin=origin, progress=lambda *state: told.append(state))
    taken = other.resolve("theirs")
    assert taken.cid == store.resolve("mine").cid
    assert other.verify(taken.cid_bytes) == []
    assert (taken.origin, report.already) == (origin, False)
    assert (taken.path / "deep" / "empty").is_dir()
    assert {"indexing", "fetching"} <= {state for state, *_ in told}
    assert take_in(other, car).already is True


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), extra=st.lists(st.binary(max_size=64), max_size=4), padding=st.booleans())
def test_the_order_of_blocks_means_nothing_nor_do_others_between(tmp_path_factory, seed, extra, padding):
    folder = tmp_path_factory.mktemp("any")
    (folder / "model").mkdir()
    (folder / "model" / "a").write_bytes(random.Random(seed).randbytes(2 * MIB + seed))
    (folder / "model" / "b").write_text("{}")
    store = ModelStore(folder / "store")
    cid = store.add(folder / "model").cid_bytes
    store.export(cid, folder / "first.car")
    roots, blocks = blocks_of(folder / "first.car")
    blocks += [(make_cid(RAW, data), data) for data in extra]
    if padding:  # of a codec and a hash that no model has
        blocks.append((b"\x01\x71\x12\x20" + hashlib.sha256(b"x").digest(), b"x"))
        blocks.append((b"\x01\x55\x13\x40" + hashlib.sha512(b"y").digest(), b"y"))
    random.Random(seed).shuffle(blocks)
    other = ModelStore(folder / "other")
    take_in(other, write(folder / "second.car", roots, blocks))
    assert other.verify(cid) == []


def test_a_file_that_is_cut_anywhere_is_told_and_leaves_no_model(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    store = ModelStore(tmp_path / "store")
    store.export(store.add(folder).cid_bytes, tmp_path / "whole.car")
    whole, cut, other = (tmp_path / "whole.car").read_bytes(), tmp_path / "cut.car", ModelStore(tmp_path / "other")
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(AccelError) as refused:
            take_in(other, cut)
        assert refused.value.code in ("bad-input", "corrupt-content", "content-not-found"), length
        assert other.models() == []


def test_a_block_that_is_not_what_its_cid_says_is_refused(car, tmp_path):
    data = bytearray(car.read_bytes())
    data[-MIB] ^= 1
    car.write_bytes(data)
    other = ModelStore(tmp_path / "other")
    with pytest.raises(AccelError) as refused:
        take_in(other, car)
    assert refused.value.code == "corrupt-content"
    assert "mine.car" in refused.value.message
    with car.open("rb") as stream, pytest.raises(AccelError, match="is not what its CID"):
        keep_stream(stream, tmp_path / "kept.car")


def test_a_block_that_lacks_is_told(car, tmp_path):
    roots, blocks = blocks_of(car)
    write(car, roots, [each for each in blocks if len(each[1]) != 17])
    with pytest.raises(AccelError) as refused:
        take_in(ModelStore(tmp_path / "other"), car)
    assert refused.value.code == "content-not-found"


def test_one_of_several_roots_is_chosen(car, tmp_path, store):
    roots, blocks = blocks_of(car)
    second = tmp_path / "second"
    second.mkdir()
    (second / "config.json").write_text("[]")
    added = store.add(second)
    store.export(added.cid_bytes, tmp_path / "second.car")
    more, others = blocks_of(tmp_path / "second.car")
    write(car, roots + more, blocks + others)
    other = ModelStore(tmp_path / "other")
    with pytest.raises(AccelError, match="names 2 roots") as refused:
        take_in(other, car)
    assert "--root" in refused.value.hint
    take_in(other, car, root=added.cid_bytes)
    assert [model.cid for model in other.models()] == [added.cid]


def test_through_a_pipe_every_block_is_checked(car, tmp_path):
    reading, writing = os.pipe()

    def feed():
        with os.fdopen(writing, "wb") as out:
            out.write(version_2(car.read_bytes()))

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        keep_stream(stream, tmp_path / "kept.car")
        stream.read()
    thread.join()
    assert (tmp_path / "kept.car").read_bytes() == car.read_bytes()


def test_damage_on_disk_is_not_exported(store, tmp_path):
    model = store.resolve("mine")
    with (model.path / "weights").open("r+b") as file:
        file.seek(MIB + 1)
        file.write(b"!")
    with pytest.raises(AccelError) as refused:
        store.export(model.cid_bytes, tmp_path / "bad.car")
    assert (refused.value.code, list(tmp_path.glob("*bad.car*"))) == ("corrupt-content", [])
    assert "repo verify" in refused.value.hint


def test_what_is_there_or_not_here(store, car, tmp_path):
    with pytest.raises(AccelError, match="is there already"):
        store.export(store.resolve("mine").cid_bytes, car)
    with pytest.raises(AccelError, match="model-not-here"):
        store.export(make_cid(0x70, b"nothing"), tmp_path / "new.car")
    with pytest.raises(AccelError, match="is no file"):
        read_index(tmp_path)


def counted(header) -> bytes:
    encoded = cbor2.dumps(header)
    return bytes((len(encoded),)) + encoded


HEADER = encode_header([make_cid(0x70, b"")])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad-input"),
        (b"\x00", "bad-input"),
        (b"GIF89a" * 100, "bad-input"),
        (b"\xff" * 20, "corrupt-content"),
        (counted({"version": 7, "roots": []}), "bad-input"),
        (counted({"version": 1, "roots": [1, 2]}), "bad-input"),
        (b"\xff\x7f" + b"\x81" * 16383, "bad-input"),
        (HEADER + b"\x00", "corrupt-content"),
        (HEADER + b"\x05\x01\x55", "corrupt-content"),
        (HEADER + b"\x80\x80\x80\x80\x80\x80\x80\x7f", "corrupt-content"),
        (HEADER + encode_section(b"\x01\x55\x12\x20", b""), "corrupt-content"),
        (HEADER + encode_section(make_cid(RAW, b"x"), bytes((2 << 20) + 1)), "corrupt-content"),
        (HEADER + encode_section(b"\x80" * 40, b"x" * 60), "corrupt-content"),
    ],
)
def test_what_is_no_car_is_refused(tmp_path, data, code):
    path = tmp_path / "made.car"
    path.write_bytes(data)
    with pytest.raises(AccelError) as refused:
        read_index(path).root()
    assert refused.value.code == code
    assert refused.value.hint


@given(st.binary(max_size=400))
def test_whatever_is_read_ends_or_is_refused(data):
    class Stream(io.BytesIO):
        def seekable(self):
            return False

    try:
        reader = CarReader(Stream(data if len(data) % 2 else HEADER + data))
        for section in reader.sections():
            assert len(reader.read(section)) == section.length
    except AccelError as error:
        assert error.code in ("bad-input", "corrupt-content")


def test_too_many_blocks(car, monkeypatch):
    monkeypatch.setattr(car_source, "_MAX_BLOCKS", 3)
    with pytest.raises(AccelError, match="too-large"):
        read_index(car)


def test_a_source_gives_what_it_has(car):
    index = read_index(car)
    given_out = {}

    async def deliver(cid, block):
        given_out[cid] = block

    unknown = make_cid(RAW, b"unknown")
    trio.run(lambda: CarSource(car, index).fetch([index.roots[0], unknown], deliver))
    assert make_cid(0x70, given_out[index.roots[0]]) == index.roots[0], format_cid(index.roots[0])
    assert given_out[unknown] is None

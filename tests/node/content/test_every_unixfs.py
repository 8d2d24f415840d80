"""Any folder, made into blocks in any way, becomes the same folder again, and every block is had back from it."""

from __future__ import annotations

import random

import pytest
from fuzzing.dags import Builder, Make
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.index import BlockIndex, checked_files
from ipfs_accel_node.node.content.places import LeafMismatchError, Places


def walk_blocks(root, blocks, *, presume=True):
    """The model's contents, its leaves that came along, and the CIDs that were asked for."""
    walk, asked = DagWalk(root, presume=presume), []
    while wanted := walk.wanted():
        for cid in wanted:
            asked.append(cid)
            walk.add(cid, blocks[cid])
    return walk.finished(), walk.found, asked


def fill(contents, found, blocks, folder):
    """Puts every leaf where it belongs."""
    places = Places(contents, folder)
    places.prepare()
    digests = {cid[-32:]: block for cid, block in blocks.items()} | found
    leaves = range(len(places.have))
    assert places.check(leaves) + places.fill(leaves, lambda cid: digests[cid[-32:]]) == contents.size
    assert not places.have.count(0)


def read_model(builder, root, folder):
    """The contents once the folder is there, and how often the DAG was walked for it."""
    for walks, presume in enumerate((True, False), 1):
        contents, found, _ = walk_blocks(root, builder.blocks, presume=presume)
        try:
            fill(contents, found, builder.blocks, folder)
        except LeafMismatchError:
            continue
        return contents, walks
    raise AssertionError("it was refused twice")


def damaged_files(folder, contents):
    return [path for path, _, sound in checked_files(folder, contents) if not sound]


def tree_of(folder):
    """What is in a folder, as the builder takes it."""
    return {
        path.name: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else tree_of(path)
        for path in folder.iterdir()
    }


def check_model(builder, tree, folder):
    """Reads it and compares everything; how often the DAG was walked."""
    root = builder.root(tree)
    contents, walks = read_model(builder, root, folder)
    assert tree_of(folder) == tree
    assert contents.is_whole(folder)
    assert damaged_files(folder, contents) == []
    kept = Contents.unpack(contents.pack())
    assert kept.pack() == contents.pack()
    index = BlockIndex()
    index.add(folder, kept)
    assert {cid: index.read(cid) for cid in builder.blocks} == builder.blocks
    assert not builder.leaves & kept.nodes.keys(), "no leaf is held twice"
    return walks


#: A file: how it is made up, how many leaves it has about, and how many bytes more.
FILES = st.tuples(st.sampled_from(["random", "repeated", "zeros"]), st.integers(0, 40), st.integers(0, 20))
NAMES = st.text("abcdefxyzäA0.-_ ", min_size=1, max_size=5).filter(lambda name: name.strip(".") != "")
TREES = st.recursive(
    st.dictionaries(NAMES, FILES, max_size=6),
    lambda inner: st.dictionaries(NAMES, FILES | inner, max_size=5),
    max_leaves=8,
)


def content(kind, leaves, more, chunk):
    size = leaves * chunk + more
    if kind == "random":
        return random.Random(size).randbytes(size)
    return bytes(size) if kind == "zeros" else (random.Random(more).randbytes(chunk) * (leaves + 1))[:size]


def grown(tree, chunk):
    """The tree with each file's bytes, for leaves of that size."""
    return {
        name: grown(each, chunk) if isinstance(each, dict) else content(*each, chunk) for name, each in tree.items()
    }


MAKES = st.builds(
    Make,
    chunk=st.sampled_from([1, 64, 128, 300]),
    varying=st.booleans(),
    width=st.integers(3, 9),
    layout=st.sampled_from(["balanced", "trickle", "ragged"]),
    version=st.sampled_from([0, 1]),
    leaves=st.sampled_from(["raw", "file", "data", "unsized", "packed", "odd"]),
    fanout=st.sampled_from([0, 0, 2, 8, 16, 256, 1024]),
    inline=st.sampled_from([0, 0, 40, 127, 128]),
    sizes=st.sampled_from(["true", "true", "none", "wrong"]),
    mtime=st.booleans(),
)


def has_files(tree):
    return any(not isinstance(each, dict) or has_files(each) for each in tree.values())


@settings(max_examples=100, deadline=None)
@given(TREES.filter(has_files), MAKES)
def test_any_folder_in_any_make(tmp_path_factory, tree, make):
    check_model(Builder(make), grown(tree, make.chunk), tmp_path_factory.mktemp("model"))


SMALL = {
    "config.json": b"{}",
    "empty": b"",
    "inner": {"weights": random.Random(1).randbytes(9000), "void": {}},
    "same": random.Random(1).randbytes(900),
    "zeros": bytes(4000),
}


@pytest.mark.parametrize("leaves", ["raw", "file", "data", "unsized", "packed"])
@pytest.mark.parametrize("layout", ["balanced", "trickle", "ragged"])
@pytest.mark.parametrize("version", [0, 1])
def test_what_others_write_is_walked_once(tmp_path, leaves, layout, version):
    builder = Builder(Make(leaves=leaves, layout=layout, version=version))
    assert check_model(builder, SMALL, tmp_path) == 1


@pytest.mark.parametrize("sizes", ["none", "wrong"])
@pytest.mark.parametrize("leaves", ["raw", "file", "odd"])
def test_the_sizes_of_links_are_not_needed(tmp_path, leaves, sizes):
    for number, layout in enumerate(["balanced", "trickle", "ragged"]):
        builder = Builder(Make(leaves=leaves, layout=layout, version=0, sizes=sizes))
        assert check_model(builder, SMALL, tmp_path / str(number)) <= 2


@pytest.mark.parametrize("version", [0, 1])
def test_of_wrapped_leaves_a_node_is_asked_for_the_first_only(version):
    """About one leaf in 30 comes while walking, and all of them are of use."""
    builder = Builder(Make(chunk=1000, width=30, leaves="file", version=version))
    root = builder.root({"weights": random.Random(2).randbytes(1_000_000), "more": random.Random(3).randbytes(300_000)})
    contents, found, asked = walk_blocks(root, builder.blocks)
    met = [cid for cid in asked if cid in builder.leaves]
    assert sum(file.leaf_count for file in contents.files) == 1300
    assert len(met) <= 45 == -(-1000 // 30) + -(-300 // 30) + 1
    assert {cid[-32:] for cid in met} == found.keys()


def test_leaves_made_in_an_odd_way_are_each_asked_for(tmp_path):
    builder = Builder(Make(leaves="odd", version=0))
    _, _, asked = walk_blocks(builder.root(SMALL), builder.blocks)
    assert builder.leaves <= set(asked)
    assert check_model(builder, SMALL, tmp_path) == 1


def test_files_of_two_makes_side_by_side(tmp_path):
    """Each node's leaves are taken to be alike, not those of a whole model."""
    builder = Builder(Make(leaves="file", version=0))
    first = builder.file(random.Random(1).randbytes(3000))
    builder.make = Make(leaves="data")
    second = builder.file(random.Random(2).randbytes(3000))
    mixed = builder.joined([first, second])
    root = builder.node([(first, "a"), (second, "b"), (mixed, "both")], b"\x08\x01", 0).cid
    contents, walks = read_model(builder, root, tmp_path)
    assert walks == 1
    assert (tmp_path / "both").read_bytes() == (tmp_path / "a").read_bytes() + (tmp_path / "b").read_bytes()
    assert damaged_files(tmp_path, contents) == []


def test_leaves_of_two_makes_below_one_node_take_a_second_walk(tmp_path):
    builder = Builder(Make(leaves="file"))
    first = [builder.leaf(bytes([each]) * 9) for each in range(3)]
    builder.make = Make(leaves="data")
    second = [builder.leaf(bytes([each]) * 9) for each in range(3, 6)]
    root = builder.node([(builder.joined([*first, *second]), "a")], b"\x08\x01", 0).cid
    contents, walks = read_model(builder, root, tmp_path)
    assert walks == 2
    assert (tmp_path / "a").read_bytes() == b"".join(bytes([each]) * 9 for each in range(6))
    assert damaged_files(tmp_path, contents) == []


@pytest.mark.parametrize("layout", ["balanced", "trickle"])
def test_nodes_with_leaves_below_them_may_have_bytes_of_their_own(tmp_path, layout):
    builder = Builder(Make(leaves="file", layout=layout, own=20))
    data = random.Random(1).randbytes(5000)
    root = builder.root({"a": data})
    contents, walks = read_model(builder, root, tmp_path)
    whole = (tmp_path / "a").read_bytes()
    assert walks == 1
    assert len(whole) == contents.size > len(data)
    at = 0
    for chunk in Builder(builder.make).chunks(data):
        at = whole.index(chunk, at) + len(chunk)  # in their order, with a node's own bytes between some
    assert damaged_files(tmp_path, Contents.unpack(contents.pack())) == []


def test_a_raw_leaf_may_be_the_very_block_of_a_wrapped_one(tmp_path):
    """A file of blocks, beside the file that they make."""
    builder = Builder(Make(leaves="file"))
    parts = [builder.leaf(bytes([each]) * 9) for each in range(3)]
    blocks = [builder.blocks[part.cid] for part in parts]
    builder.make = Make(leaves="raw")
    raw = [builder.leaf(block) for block in blocks]
    again = [builder.joined(each) for each in (parts, raw, parts, raw)]
    links = [(part, f"{number}") for number, part in enumerate(again)]
    contents, walks = read_model(builder, builder.node(links, b"\x08\x01", 0).cid, tmp_path)
    assert walks == 1
    assert (tmp_path / "1").read_bytes() == (tmp_path / "3").read_bytes() == b"".join(blocks)
    assert damaged_files(tmp_path, contents) == []


def test_a_sharded_folder_of_kubo():
    """`ipfs add` of 6000 files, by Kubo 0.22: what the builder makes is that, and it is read."""
    name = "file-with-a-rather-long-name-so-that-the-folder-is-sharded-{}"
    tree = {name.format(number): b"%d\n" % number for number in range(1, 6001)}
    builder = Builder(Make(version=0, leaves="file", chunk=1 << 18, width=174, fanout=256))
    root = builder.root(tree)
    assert format_cid(root) == "QmRo2Dq7j8bUKsihrZhWvjJ6BwEzLQtcQ6k9VjYGVVFPP4"
    contents, found, _ = walk_blocks(root, builder.blocks)
    assert {file.path: file.data(0, found[file.digest(0)]) for file in contents.files} == tree


@pytest.mark.parametrize("fanout", [2, 8, 256, 1024])
@pytest.mark.parametrize("version", [0, 1])
def test_sharded_folders(tmp_path, fanout, version):
    names = {f"model-{number:05}-of-00300.safetensors": b"%d" % number for number in range(300)}
    builder = Builder(Make(fanout=fanout, version=version, leaves="file"))
    assert check_model(builder, {**names, "inner": {"a": b"a"}, "void": {}}, tmp_path) == 1


def test_symbolic_links_stay_links(tmp_path):
    tree = {
        "blobs": {"1": b"weights", "2": b"more"},
        "model.safetensors": "blobs/1",
        "odd": "./blobs//2",
        "snapshots": {"main": {"weights": "../../model.safetensors", "all": "../../blobs"}},
    }
    for number, make in enumerate([Make(), Make(version=0, leaves="file", fanout=8), Make(inline=128, mtime=True)]):
        builder = Builder(make)
        folder = tmp_path / str(number)
        contents, _ = read_model(builder, builder.root(tree), folder)
        assert contents.links == {
            "model.safetensors": "blobs/1", "odd": "./blobs//2",
            "snapshots/main/weights": "../../model.safetensors", "snapshots/main/all": "../../blobs",
        }  # fmt: skip
        assert (folder / "snapshots/main/weights").read_bytes() == b"weights"
        assert (folder / "snapshots/main/all/2").read_bytes() == b"more"
        assert Contents.unpack(contents.pack()).links == contents.links
        (folder / "odd").unlink()
        assert not contents.is_whole(folder)
        assert damaged_files(folder, contents) == ["odd"]


def test_sparse_files_stay_sparse(tmp_path):
    builder = Builder(Make(chunk=1 << 16, width=100))
    content, root = bytes(40 << 20) + b"end", builder.root({"zeros": bytes(40 << 20) + b"end"})
    read_model(builder, root, tmp_path)
    assert (tmp_path / "zeros").read_bytes() == content
    assert (tmp_path / "zeros").stat().st_blocks * 512 < 1 << 20

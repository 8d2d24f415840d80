"""A DAG becomes files, or is refused with a reason before any disk is spent."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, make_cid
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.unixfs import Link, _bytes_field, _field, encode_directory, encode_file
from ipfs_accel_node.protocols.errors import AccelError

LEAF = make_cid(RAW, b"leaf")
LEAF_LINK = Link(LEAF, "", 4)


def cid_of(block):
    return make_cid(DAG_PB, block)


def walked(root_block, *more):
    """The contents that these blocks make."""
    blocks = {cid_of(block): block for block in (root_block, *more)}
    walk = DagWalk(cid_of(root_block))
    while wanted := walk.wanted():
        for cid in wanted:
            walk.add(cid, blocks[cid])
    return walk.finished()


def refused(*blocks, code="hostile-content"):
    """The reason for which these blocks are refused."""
    with pytest.raises(AccelError) as error:
        walked(*blocks)
    assert error.value.code == code
    assert error.value.hint
    return error.value.message


@settings(max_examples=30, deadline=None)
@given(
    files=st.dictionaries(
        st.text("abä0-.", min_size=1, max_size=6).filter(lambda name: not name.startswith(".")),
        st.tuples(st.sampled_from(["", "sub/", "sub/deep/"]), st.sampled_from([0, 1, 5000, (1 << 20) + 3])),
        min_size=1,
        max_size=5,
    )
)
def test_what_was_imported_is_walked_to_the_same_contents(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("model")
    for name, (prefix, size) in files.items():
        (folder / f"x{prefix}").mkdir(parents=True, exist_ok=True)
        (folder / f"x{prefix}" / name).write_bytes(name.encode()[:1] * size)
    (folder / "void").mkdir()
    imported = import_folder(folder)
    root = imported.nodes.pop(imported.root)
    assert walked(root, *imported.nodes.values()).pack() == import_folder(folder).pack()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../etc/passwd", "a\0b", "a\\b", "a\nb", "\x1b[2J"])
def test_names_that_lead_elsewhere_or_garble_a_screen(name):
    assert "no file name" in refused(encode_directory([Link(LEAF, name, 4)]))


def test_names_and_paths_that_no_disk_takes():
    assert "too long" in refused(encode_directory([Link(LEAF, "x" * 256, 4)]))
    blocks = [encode_directory([Link(LEAF, "leaf", 4)])]
    for _ in range(10):
        blocks.insert(0, encode_directory([Link(cid_of(blocks[0]), "d" * 250, 1)]))
    assert "a path over 2048 bytes" in refused(*blocks)


def test_two_entries_of_one_name():
    assert "one name" in refused(encode_directory([Link(LEAF, "a", 4), Link(make_cid(RAW, b"b"), "a", 1)]))


def in_folder(file, *more):
    """The blocks of a folder with that one file."""
    return (encode_directory([Link(cid_of(file), "a", 99)]), file, *more)


def test_sizes_that_do_not_add_up():
    inner = encode_file([LEAF_LINK, LEAF_LINK], [4, 4])
    outer = encode_file([Link(cid_of(inner), "", 99)], [7])
    assert "add up" in refused(*in_folder(outer, inner))


def test_a_file_whose_parts_are_not_its_size():
    unixfs = _field(1, 2) + _field(3, 1 << 50) + _field(4, 5)
    block = _bytes_field(2, _bytes_field(1, LEAF) + _bytes_field(2, b"") + _field(3, 5)) + _bytes_field(1, unixfs)
    assert "sum of its parts" in refused(*in_folder(block))


@pytest.mark.parametrize("sizes", [(4, 9), (4, 4, 3, 4), (0, 0), (4, 0), (0, 4)])
def test_chunks_of_any_sizes(sizes):
    links = [Link(make_cid(RAW, bytes(number)), "", size) for number, size in enumerate(sizes)]
    (file,) = walked(*in_folder(encode_file(links, sizes))).files
    assert [file.extent(number)[1] for number in range(len(sizes))] == list(sizes)


def test_absurd_chunks():
    block = encode_file([Link(LEAF, "", 1 << 40)], [1 << 40])
    assert "2 MiB" in refused(*in_folder(block))


def test_folders_nested_too_deep():
    blocks = [encode_directory([Link(LEAF, "leaf", 4)])]
    for _ in range(40):
        blocks.insert(0, encode_directory([Link(cid_of(blocks[0]), "d", 1)]))
    assert "nested deeper" in refused(*blocks)


def test_files_nested_too_deep():
    blocks = [encode_file([LEAF_LINK], [4])]
    for _ in range(40):
        blocks.insert(0, encode_file([Link(cid_of(blocks[0]), "", 4)], [4]))
    assert "too deep" in refused(*in_folder(*blocks))


def doubling(innermost, link_twice, levels=31):
    """Few blocks that make 2^levels of something."""
    blocks = [innermost]
    for _ in range(levels):
        blocks.insert(0, link_twice(cid_of(blocks[0])))
    return blocks


def test_bombs_are_refused_quickly():
    """Each names its parts twice over, so that a few blocks stand for billions of entries, nodes or leaves."""
    began = time.process_time()

    def twice(cid):
        return encode_directory([Link(cid, "a", 1), Link(cid, "b", 1)])

    def twice_nothing(cid):
        return encode_file([Link(cid, "", 0)] * 2, [0, 0])

    def thousandfold(block, size):
        return encode_file([Link(cid_of(block), "", size)] * 1000, [size] * 1000), size * 1000

    assert "entries" in refused(*doubling(encode_directory([]), twice))
    assert "entries" in refused(*doubling(encode_directory([Link(LEAF, "leaf", 4)]), twice))
    assert "too many nodes" in refused(*in_folder(*doubling(encode_file([], []), twice_nothing)))
    inner = encode_file([LEAF_LINK] * 1000, [4] * 1000)
    middle, size = thousandfold(inner, 4000)
    outer, _ = thousandfold(middle, size)
    assert "too many leaves" in refused(*in_folder(outer, middle, inner))
    assert time.process_time() - began < 30


def test_what_is_no_folder_of_files_is_no_model():
    assert "no files" in refused(encode_directory([]), code="not-a-model")
    assert "names a file" in refused(encode_file([LEAF_LINK], [4]), code="not-a-model")
    for single in (LEAF, b"\x01\x70\x00\x04" + encode_directory([])):
        with pytest.raises(AccelError, match="single block") as error:
            DagWalk(single)
        assert error.value.code == "not-a-model"


def test_nodes_that_are_in_their_cids_are_read():
    inline = encode_file([], [])
    folder = encode_directory([])
    root = encode_directory(
        [Link(b"\x01\x70\x00" + bytes((len(each),)) + each, name, 1) for name, each in (("f", inline), ("d", folder))]
    )
    contents = walked(root)
    assert [(file.path, file.size) for file in contents.files] == [("f", 0)]
    assert contents.empty_folders == ["d"]

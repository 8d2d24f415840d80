"""Folders that are not what they say, shards and links above all: refused with a reason, before any disk is spent."""

from __future__ import annotations

import time

import pytest
from fuzzing.dags import DIRECTORY, FILE, HAMT, SYMLINK, Builder, Make, Part, dag_pb, held, told
from ipfs_accel_node.node.content.cid import DAG_PB, MAX_IDENTITY, RAW, make_cid
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.murmur3 import hamt_hash
from ipfs_accel_node.protocols.errors import AccelError


def walked(builder, root, *, presume=True):
    walk = DagWalk(root, presume=presume)
    while wanted := walk.wanted():
        for cid in wanted:
            walk.add(cid, builder.blocks[cid])
    return walk.finished()


def refused(builder, root):
    """The reason for which a folder is refused, whether anything is presumed of it or not."""
    reasons = set()
    for presume in (True, False):
        with pytest.raises(AccelError) as error:
            walked(builder, root.cid, presume=presume)
        assert (error.value.code, bool(error.value.hint)) == ("hostile-content", True)
        reasons.add(error.value.message)
    (reason,) = reasons
    return reason


def folder(builder, **entries):
    return builder.node([(part, name) for name, part in entries.items()], told(1, DIRECTORY), 0)


def shard(links, *, fanout=256, taken=None, hash_type=0x22):
    """A builder with a shard of these (name, part) links, and the shard."""
    builder = Builder(Make())
    leaf = builder.file(b"leaf")
    if taken is None:
        taken = sum(1 << place for place in {int(name[:2], 16) for name, _ in links})
    bits = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
    data = told(1, HAMT) + held(2, bits) + told(5, hash_type) + told(6, fanout)
    return builder, builder.node([(part or leaf, name) for name, part in links], data, 0)


def placed(name, used=0, bits=8):
    """The name as it is in a shard that the first `used` bits of its hash lead to."""
    return f"{hamt_hash(name) << used + bits >> 64 & (1 << bits) - 1:02X}{name}"


def test_a_sound_shard_to_begin_with():
    links = sorted((placed(name), None) for name in ("a", "config.json", "model"))
    builder, root = shard(links)
    assert {file.path for file in walked(builder, root.cid).files} == {"a", "config.json", "model"}


@pytest.mark.parametrize("fanout", [0, 1, 3, 100, 2048, 1 << 40])
def test_shards_of_an_absurd_size(fanout):
    assert "power of two" in refused(*shard([(placed("a"), None)], fanout=fanout))


def test_shards_by_another_hash():
    assert "other than murmur3" in refused(*shard([(placed("a"), None)], hash_type=0x12))


def test_entries_in_a_shard_that_their_hash_does_not_lead_to():
    wrong = f"{(hamt_hash('a') >> 56) ^ 1:02X}a"
    assert "hash does not lead" in refused(*shard([(wrong, None)]))


@pytest.mark.parametrize("name", ["..", "a/b", "a\nb", "x" * 256, "x" * 257])
def test_names_in_shards_are_checked_too(name):
    assert "name" in refused(*shard([(placed(name), None)]))


@pytest.mark.parametrize("name", ["", "A", "zzconfig", "a1a", "+1a", "٣٣a"])
def test_entries_not_named_by_their_place(name):
    assert "named by its place" in refused(*shard([(name, None)], taken=1))


def test_two_entries_at_one_place_or_of_one_name():
    name = placed("a")
    assert "two are at one place" in refused(*shard([(name, None), (name, None)]))
    assert "two are at one place" in refused(*shard([(name, None), (name[:2], None)]))


def test_entries_out_of_order():
    links = sorted(((placed(name), None) for name in ("a", "config.json")), reverse=True)
    assert "out of order" in refused(*shard(links))


@pytest.mark.parametrize("taken", [0, 1 << 255, (1 << 300) - 1])
def test_shards_that_have_other_entries_than_they_say(taken):
    assert "other entries than it says" in refused(*shard([(placed("a"), None)], taken=taken))


def below(inner, *, fanout=256, name="a"):
    """A shard with that one below it."""
    builder, _ = shard([])
    data = told(1, HAMT) + held(2, (1 << (hamt_hash(name) >> 56)).to_bytes(32, "big").lstrip(b"\0"))
    part = inner(builder)
    return builder, builder.node([(part, placed(name)[:2])], data + told(5, 0x22) + told(6, fanout), 0)


def test_a_shard_with_something_else_below_it():
    for inner in (lambda builder: builder.folder({"a": b"a"}), lambda builder: builder.file(bytes(600))):
        assert "something else below it" in refused(*below(inner))
    assert "something else below it" in refused(*below(lambda builder: builder.file(b"leaf")))


def test_shards_without_entries_or_of_two_sizes():
    empty = told(1, HAMT) + told(5, 0x22) + told(6, 256)
    assert "no entries" in refused(*below(lambda builder: builder.node([], empty, 0)))
    assert "differ in size" in refused(
        *below(lambda builder: Builder(Make(fanout=16), builder.blocks).folder({"a": b"a"}))
    )


def test_shards_nested_deeper_than_a_hash_reaches():
    builder, _ = shard([])
    at = builder.file(b"leaf")
    for depth in range(9, -1, -1):
        place = hamt_hash("a") << 8 * depth + 8 >> 64 & 255 if depth < 8 else 7
        data = told(1, HAMT) + held(2, (1 << place).to_bytes(32, "big")) + told(5, 0x22) + told(6, 256)
        at = builder.node([(at, f"{place:02X}{'a' * (depth == 9)}")], data, 0)
    assert "deeper than a hash reaches" in refused(builder, at)


def test_wide_shards_that_name_one_shard_again_and_again():
    """Few blocks that stand for a thousand million shards: what is followed is counted."""
    began = time.process_time()
    builder, _ = shard([])
    everywhere = held(2, b"\xff" * 128) + told(5, 0x22) + told(6, 1024)
    at = builder.folder({"a": b"a"})
    for _ in range(4):
        at = builder.node([(at, f"{place:03X}") for place in range(1024)], told(1, HAMT) + everywhere, 0)
    assert refused(builder, at)
    inner = Builder(Make(fanout=1024), builder.blocks).folder({"a": b"a"})
    many = builder.node([(inner, str(number)) for number in range(1000)], told(1, DIRECTORY), 0)
    for _ in range(3):
        many = builder.node([(many, str(number)) for number in range(1000)], told(1, DIRECTORY), 0)
    assert "entries" in refused(builder, many)
    assert time.process_time() - began < 30


# --- links


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../x",
        "..",
        "inner/../../x",
        "missing",
        "inner/missing",
        "missing/../weights",
        "weights/..",
        "weights/",
    ],
)
def test_links_that_lead_out_or_nowhere(target):
    builder = Builder(Make())
    root = builder.folder({"weights": b"w", "inner": {"a": b"a"}, "link": target})
    assert "leads out of the folder" in refused(builder, root)


def test_links_in_circles():
    for tree in (
        {"a": "b", "b": "a", "w": b"w"},
        {"a": "a", "w": b"w"},
        {"a": "b/../a", "b": {}, "w": b"w"},
        {"a": "c/a", "c": ".", "w": b"w"},
    ):
        builder = Builder(Make())
        assert "circle" in refused(builder, builder.folder(tree))


@pytest.mark.parametrize(
    "tree",
    [
        {"up": ".", "w": b"w"},
        {"inner": {"up": ".."}, "w": b"w"},
        {"inner": {"deep": {"up": "../../inner"}}, "w": b"w"},
        {"a": {"x": "../b"}, "b": {"y": "../a"}, "w": b"w"},
    ],
)
def test_links_to_a_folder_that_they_are_in(tree):
    builder = Builder(Make())
    assert "leads back to a folder that it is in" in refused(builder, builder.folder(tree))


def test_links_that_take_long_to_follow():
    began = time.process_time()
    builder = Builder(Make())
    tree = {f"link{number}": "inner/../" * 220 + "w" for number in range(10_000)}
    assert "too many parts" in refused(builder, builder.folder({**tree, "inner": {}, "w": b"w"}))
    chain = {f"l{number}": f"l{number + 1}" for number in range(60)}
    assert "circle" in refused(builder, builder.folder({**chain, "l60": b"w"}))
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    "block",
    [
        told(1, SYMLINK),
        told(1, SYMLINK) + held(2, b"x" * 2049),
        told(1, SYMLINK) + held(2, b"\xff\xfe"),
        told(1, SYMLINK) + held(2, b"a") + told(4, 1),
    ],
)
def test_links_that_are_none(block):
    builder = Builder(Make())
    assert "refused" in refused(builder, folder(builder, a=builder.file(b"a"), b=builder.node([], block, 0)))


def test_a_link_inside_a_file_and_a_folder_inside_a_file():
    for kind in (told(1, SYMLINK) + held(2, b"a"), told(1, DIRECTORY), told(1, HAMT) + told(5, 0x22) + told(6, 8)):
        builder = Builder(Make(sizes="none"))
        odd = builder.node([], kind, 0)
        file = builder.joined([Part(odd.cid, 0, 0)])
        assert "no part of a file" in refused(builder, folder(builder, a=file))


# --- files


def test_wrapped_leaves_whose_size_their_node_tells_wrong():
    builder = Builder(Make(leaves="file"))
    leaf = builder.leaf(b"four")
    for size in (3, 5, 0):
        lying = builder.joined([Part(leaf.cid, size, leaf.total)])
        assert "has 4 bytes, and is said to have" in refused(builder, folder(builder, a=lying))


def test_sizes_that_overflow():
    builder = Builder(Make())
    leaf = builder.leaf(b"four")
    for size in (1 << 46, (1 << 61) - 1):
        lying = builder.joined([Part(leaf.cid, size, 0)] * 2)
        assert "absurd" in refused(builder, folder(builder, a=lying))
    cut = dag_pb([(leaf.cid, "", 0)], told(1, FILE) + b"\x18" + b"\xff" * 10 + b"\x01")
    builder.blocks[make_cid(DAG_PB, cut)] = cut
    assert "too long" in refused(builder, folder(builder, a=Part(make_cid(DAG_PB, cut), 0, 0)))


def test_nodes_in_their_cids_may_not_be_huge():
    builder = Builder(Make())
    for codec in (RAW, DAG_PB):
        huge = bytes((1, codec, 0)) + b"\x81\x01" + bytes(MAX_IDENTITY + 1)
        assert "CID cannot be read" in refused(builder, folder(builder, a=Part(huge, 1, 1)))


def test_nodes_in_their_cids_name_each_other_only_so_deep():
    """Each has the next one in its CID, so all have to fit into 128 bytes."""
    builder = Builder(Make(inline=MAX_IDENTITY))
    at = builder.file(b"w")
    for _ in range(5):
        at = folder(builder, d=at)
    builder.make = Make()
    assert walked(builder, folder(builder, top=at).cid).files[0].path.count("/") == 5


def test_a_node_with_many_bytes_of_its_own_that_is_named_again_and_again():
    """Its bytes are held once, however often it is part of the file."""
    began = time.process_time()
    builder = Builder(Make())
    large = [builder.joined([builder.leaf(bytes([each]))], bytes([each]) * (1 << 20)) for each in range(20)]
    many = builder.joined(large * 20)
    contents = walked(builder, folder(builder, a=many).cid)
    assert contents.size == 20 * 20 * ((1 << 20) + 1)
    assert len(contents.pack()) < 50 << 20
    more = builder.joined([many] * 1000)
    assert "too many nodes" in refused(builder, folder(builder, a=more))
    assert time.process_time() - began < 30


def test_leaves_with_much_around_their_bytes_are_not_held():
    huge = told(1, FILE) + held(8, bytes(1 << 20))
    builder = Builder(Make())
    assert "too much" in refused(builder, folder(builder, a=builder.node([], huge, 0)))
    builder = Builder(Make(sizes="none"))
    first = builder.joined([builder.leaf(b"a")], b"a" * 1_500_000)
    assert walked(builder, folder(builder, a=first).cid).size == 1_500_001


def test_very_many_nodes_in_their_cids():
    builder = Builder(Make(inline=40))
    inner = builder.joined([builder.leaf(b"")])
    builder.make = Make()
    root = folder(builder, **{str(n): builder.joined([inner] * 26_000, bytes([n])) for n in range(4)})
    assert "too many nodes" in refused(builder, root)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x0a\x00",
        held(1, told(1, DIRECTORY)) * 2,
        held(1, told(1, DIRECTORY)) + told(3, 1),
        held(1, told(1, 3)),
        held(1, told(1, 77)),
        held(1, told(1, DIRECTORY) * 2),
        held(1, told(1, DIRECTORY) + told(9, 1)),
        held(1, told(1, DIRECTORY) + b"\x0d\0\0\0\0"),
        held(2, told(3, 1) + held(1, make_cid(RAW, b"x"))) + held(1, told(1, DIRECTORY)),
        held(2, held(1, make_cid(RAW, b"x")) + held(4, b"x")) + held(1, told(1, DIRECTORY)),
        held(2, held(2, b"a")) + held(1, told(1, DIRECTORY)),
        held(2, held(1, make_cid(RAW, b"x")) + held(2, b"a"))
        + held(1, told(1, DIRECTORY))
        + held(2, held(1, make_cid(RAW, b"x")) + held(2, b"b")),
    ],
)
def test_dag_pb_that_is_none(block):
    builder = Builder(Make())
    builder.blocks[make_cid(DAG_PB, block)] = block
    assert refused(builder, Part(make_cid(DAG_PB, block), 0, 0))
    assert refused(builder, folder(builder, a=builder.file(b"a"), b=Part(make_cid(DAG_PB, block), 0, 0)))


def test_links_after_the_data_are_read():
    """Older writers put them there; the block is kept byte for byte."""
    builder = Builder(Make())
    leaf = builder.file(b"leaf")
    block = held(1, told(1, DIRECTORY)) + held(2, held(1, leaf.cid) + held(2, b"a") + told(3, 4))
    builder.blocks[make_cid(DAG_PB, block)] = block
    assert walked(builder, make_cid(DAG_PB, block)).nodes[make_cid(DAG_PB, block)] == block


def test_names_that_differ_in_case_only_are_two():
    builder = Builder(Make())
    contents = walked(builder, builder.folder({"Readme": b"1", "README": b"2"}).cid)
    assert {file.path for file in contents.files} == {"README", "Readme"}

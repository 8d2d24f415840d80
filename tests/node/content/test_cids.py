"""CIDs equal those of the other implementations, and bad ones are told."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, format_cid, make_cid, matches, parse_cid, parts
from ipfs_accel_node.node.content.importer import CHUNK, import_folder
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20


def seeded(size: int, seed: int = 0) -> bytes:
    """The same bytes everywhere: SHA-256 of a counter."""
    blocks = (hashlib.sha256(f"{seed}/{number}".encode()).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


#: Folders and the CIDs that an independent importer, byte-identical with Kubo and the JavaScript one, gives them.
KNOWN = [
    ({"a": 0}, "bafybeihwqttitc7rssowlfhx3edhljr3kb5ax5l52pt7r3zdtbg5na7bhu"),
    ({"a": 1}, "bafybeifatnfmwlsuhr7uosux4fzl7l2ggxkqgfszqf4pmyqozqnnvbt4la"),
    ({"a": 10}, "bafybeicxhrmewmja7wferoo5upt7xbcs7bfkozaz3upu7lxchy4qx4aa44"),
    ({"a": 307200}, "bafybeihiffsdclplkcdt2pjfqdmzuglyhqdpzlzow3jxe2y3j2xxs26beq"),
    ({"a": 1048575}, "bafybeidivalutmxkwu7vbhpgif5gshrh53cr2lxtgjwstt43pbblo75usm"),
    ({"a": 1048576}, "bafybeifcmyacjgyd2wh7uzitdsuic4vozmiu2yvn7vv4luoelqb3kzrfh4"),
    ({"a": 1048577}, "bafybeibguccqinhzz4shm4cif6yattr64oboplkcrxy222qrmxuirtx3da"),
    ({"a": 5242883}, "bafybeifss3enkbd2hkyyhv3k4mhxpza7xjuxpikig3mxbgtyoxqduy4vwa"),
    (
        {"config.json": 100, "model.safetensors": 3145728, "1_Pooling/config.json": 50, "z/y/x/w": 7},
        "bafybeiebcvgv4wmmpfkklavqjwsy6f3dxp5ynamo7xuxtsc3kquck2qkwa",
    ),
    ({"B": 1, "a": 2, "b": 3, "ä": 4, "a.b": 5}, "bafybeihykq2trvrx3riiicqoy3rdk2hvrjh2dc456agtjnrbaaxgd7xgji"),
]


@pytest.mark.parametrize(("sizes", "cid"), KNOWN)
def test_folders_have_the_cids_that_others_give_them(tmp_path, sizes, cid):
    write(tmp_path, {name: seeded(size, number) for number, (name, size) in enumerate(sizes.items())})
    imported = import_folder(tmp_path)
    assert format_cid(imported.root) == cid
    assert imported.size == sum(sizes.values())


@pytest.mark.parametrize(
    ("chunks", "cid"),
    [
        (1024, "bafybeihrqguv3nbassjiy73kbpl5jl4llrnx7hive2fahgwc3ux3ssw7ji"),
        (1025, "bafybeiarbvcuzpqlh37rnenljbokh4fqnjvhhds63l6sqb2enz3ldeci4q"),
    ],
)
def test_files_around_the_width_of_a_node(tmp_path, chunks, cid):
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(chunks * CHUNK)
    assert format_cid(import_folder(tmp_path).root) == cid


def test_hidden_files_are_left_out_and_links_inside_are_followed(tmp_path):
    plain = write(tmp_path / "plain", {"a": b"x", "b/c": b"y", "d": b"x"})
    linked = write(tmp_path / "linked", {"a": b"x", "b/c": b"y", ".git/config": b"z", ".hidden": b"z"})
    (linked / "d").symlink_to("a")
    assert import_folder(linked).root == import_folder(plain).root


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "/nowhere"])
def test_a_link_that_leads_out_is_refused(tmp_path, target):
    write(tmp_path, {"outside": b"x", "model/a": b"x"})
    (tmp_path / "model" / "b").symlink_to(target)
    with pytest.raises(AccelError, match="leads out of the folder") as refused:
        import_folder(tmp_path / "model")
    assert refused.value.code == "bad-input"


def test_what_is_no_folder_of_files_is_refused(tmp_path):
    with pytest.raises(AccelError, match="no folder"):
        import_folder(tmp_path / "nowhere")
    with pytest.raises(AccelError, match="no files"):
        import_folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AccelError, match="neither a file nor a folder"):
        import_folder(tmp_path)


def test_a_folder_too_large_for_one_block_is_refused_and_never_given_a_wrong_cid(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number:0100}").write_bytes(b"")
    with pytest.raises(AccelError, match="too many entries"):
        import_folder(tmp_path)


@given(st.binary(max_size=100), st.sampled_from([RAW, DAG_PB]))
def test_cids_come_out_as_they_went_in(block, codec):
    cid = make_cid(codec, block)
    assert parse_cid(format_cid(cid)) == cid
    assert matches(cid, block)
    assert not matches(cid, block + b"x")
    assert parts(cid).codec == codec


def test_other_bases_and_versions_are_read():
    v0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
    assert format_cid(parse_cid(v0)) == v0
    usual = format_cid(make_cid(RAW, b"x"))
    from multiformats import CID

    assert parse_cid(CID.decode(usual).encode("base58btc")) == parse_cid(usual)
    identity = b"\x01\x55\x00\x03abc"
    assert parts(identity).inline == b"abc"
    assert matches(identity, b"abc")


@given(st.text(max_size=80))
def test_any_other_text_is_a_bad_cid(text):
    try:
        assert parse_cid(text)
    except AccelError as error:
        assert error.code == "bad-cid"
        assert error.hint


@given(st.binary(max_size=60))
def test_any_other_bytes_are_a_bad_cid(data):
    try:
        assert parts(data)
    except AccelError as error:
        assert error.code == "bad-cid"

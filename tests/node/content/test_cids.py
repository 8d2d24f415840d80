"""CIDs equal those of the other implementations, and bad ones are told."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import DAG_PB, RAW, format_cid, make_cid, matches, parse_cid, parts
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.profiles import DEFAULT
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
        file.truncate(chunks * DEFAULT.chunk)
    assert format_cid(import_folder(tmp_path).root) == cid


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


@pytest.mark.parametrize("around", ["ipfs://{}", "/ipfs/{}", "ipfs://{}/", " {}\n"])
def test_a_cid_is_read_out_of_what_people_paste(around):
    usual = format_cid(make_cid(DAG_PB, b"x"))
    assert parse_cid(around.format(usual)) == parse_cid(usual)


@pytest.mark.parametrize(
    "text",
    [
        "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua",  # dag-cbor
        "bafybeigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swu",
        "bafybeigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6sw11",
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbd0",
        "",
        "x" * 10_000,
    ],
)
def test_cids_of_other_kinds_and_misspelt_ones_are_told_with_a_hint(text):
    with pytest.raises(AccelError) as error:
        parse_cid(text)
    assert error.value.code == "bad-cid"
    assert "bafybei" in error.value.hint
    assert len(error.value.message) < 200


def test_usual_cids_need_no_slow_import():
    code = (
        "import sys; from ipfs_accel_node.node.content import cid, names, store;"
        "c = cid.make_cid(0x70, b'x'); assert cid.parse_cid(cid.format_cid(c)) == c; names.checked('all-MiniLM-L6-v2');"
        "print([m for m in ('multiformats', 'cryptography', 'trio', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


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

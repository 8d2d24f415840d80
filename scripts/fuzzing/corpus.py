"""Where the fuzzing begins: what the tests have as snapshots of the wire, and sound examples of everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fuzzing.dags import Builder, Make
from fuzzing.targets import KEY, framed_model, joined_blocks
from ipfs_accel_node.node.content.cid import RAW, make_cid
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.unixfs import Link, encode_directory, encode_file
from ipfs_accel_node.protocols import sealing, values
from ipfs_accel_node.protocols.hello import Hello, HelloFacts

_TESTS: Final = Path(__file__).resolve().parents[2] / "tests"
_HEX: Final = re.compile(r'"((?:[0-9a-f]{2}){4,})"')
_JOINED: Final = re.compile(r'"\s*\n\s*"')


def snapshots(*files: str) -> Iterator[bytes]:
    """Every text of hexadecimal digits in these tests."""
    for file in files:
        text = _JOINED.sub("", (_TESTS / file).read_text())
        yield from (bytes.fromhex(found) for found in _HEX.findall(text))


def frames() -> Iterator[bytes]:
    wire = list(snapshots("protocols/test_session.py", "protocols/test_blocks.py"))
    yield from (b"\xff" + each for each in wire)
    yield b"\x20" + b"".join(wire)
    yield b"\xff" + values.pack({"a": [1, 2.5, None, True, b"b", "text"], "b": values.Array("int16", (2,), b"abcd")})


def hello() -> Iterator[bytes]:
    sides = [
        Hello(HelloFacts(name, 1, ("/ip4/1.2.3.4/tcp/1",), ("f",), (("max", 5),)), KEY, dialler=dialler,
              own_peer_id=name.encode(), peer_id=b"R")
        for name, dialler in (("L", True), ("M", False))
    ]  # fmt: skip
    first = sides[0].take_outgoing()
    sides[1].receive(first)
    second = sides[1].take_outgoing()
    sides[0].receive(second)
    yield from (first, second, first + sides[0].take_outgoing())


def advert() -> Iterator[bytes]:
    for body in snapshots("protocols/test_adverts.py"):
        yield body
        yield sealing.seal(body, cluster_key=KEY, signing_key=b"s" * 32)
    yield sealing.encode_token(KEY, ["/ip4/1.2.3.4/tcp/4011/p2p/x"]).removeprefix(sealing.TOKEN_PREFIX).encode()


def dag() -> Iterator[bytes]:
    leaf = make_cid(RAW, b"leaf")
    file = encode_file([Link(leaf, "", 4)] * 2, [4, 4])
    folder = encode_directory([Link(leaf, "a", 4), Link(leaf[:1] + b"\x70" + leaf[2:], "b", 8)])
    yield from snapshots("node/content/test_unixfs.py")
    yield joined_blocks(folder, file)
    yield joined_blocks(encode_directory([Link(leaf, "config.json", 4)]))
    yield joined_blocks(encode_directory([Link(b"\x01\x70\x00" + bytes((len(file),)) + file, "f", 1)]))
    for make in _MAKES:
        builder = Builder(make)
        yield joined_blocks(*asked_for(builder.root(_TREE), builder.blocks))
    yield b"bafybeihwqttitc7rssowlfhx3edhljr3kb5ax5l52pt7r3zdtbg5na7bhu"
    yield b"QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


_TREE: Final = {
    "config.json": b"{}",
    "empty": b"",
    "sub": {"weights": bytes(range(200)), "void": {}},
    "link": "sub/weights",
}
_MAKES: Final = [
    Make(chunk=32, leaves="file", version=0, sizes="none"),
    Make(chunk=20, leaves="odd", layout="trickle", own=9, mtime=True),
    Make(chunk=20, leaves="packed", fanout=8, varying=True),
    Make(chunk=60, fanout=256, inline=128),
]


def asked_for(root: bytes, blocks: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The blocks that a walk asks for, in that order."""
    walk = DagWalk(root)
    while wanted := walk.wanted():
        yield blocks[wanted[0]]
        walk.add(wanted[0], blocks[wanted[0]])


def config() -> Iterator[bytes]:
    yield b'threads = 1\nname = "file"\nprecision = "bf16"\nmemory = "8G"\nlisten = ["/ip4/0.0.0.0/tcp/1"]\n'
    yield b'backends = "cpu,openvino"\nmdns = false\nlog_level = "debug"\npeers = ["/ip4/1.2.3.4/tcp/1/p2p/x"]\n'
    yield b"\0THREADS=3\nMEMORY=1.5 GiB\nMDNS=off\nNAME=desk\nLISTEN=/ip4/127.0.0.1/tcp/1\nJOIN=ian1x"
    yield b"[node]\nthreads = 1979-05-27T07:32:00Z\nthread.x = [1, {a = inf}]\n"


def safetensors() -> Iterator[bytes]:
    tensors = {
        "embeddings.word_embeddings.weight": {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]},
        "encoder.layer.0.output.dense.weight": {"dtype": "F16", "shape": [4, 16], "data_offsets": [128, 256]},
        "__metadata__": {"format": "pt"},
    }
    sizes = {"hidden_size": 4, "vocab_size": 8, "num_hidden_layers": 1, "intermediate_size": 16}
    bert = json.dumps({"model_type": "bert", **sizes}).encode()
    yield framed_model(bert, json.dumps(tensors).encode())
    yield framed_model(b'{"model_type": "echo"}', b"")
    yield framed_model(b'{"model_type": "bert", "auto_map": {}}', b"{}")


CORPUS: Final = {
    "frames": frames,
    "hello": hello,
    "advert": advert,
    "dag": dag,
    "config": config,
    "safetensors": safetensors,
}

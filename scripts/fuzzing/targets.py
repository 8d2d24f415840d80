"""What may be given any bytes at all: one function a target. Each returns, or raises what no bad input may ever raise.

A target swallows the typed error that its part promises, and nothing else. The tests call them with what hypothesis
makes up, `scripts/fuzz` with what libFuzzer does.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final
from unittest import mock

from ipfs_accel_node.backends.interface import BackendError
from ipfs_accel_node.backends.loading import inspect
from ipfs_accel_node.node import config as node_config
from ipfs_accel_node.node.content import cid as cids
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.unixfs import decode as decode_node
from ipfs_accel_node.protocols import advert as adverts
from ipfs_accel_node.protocols import sealing, values
from ipfs_accel_node.protocols.blocks import BlockAnswerer, BlockAsker
from ipfs_accel_node.protocols.errors import AccelError, ErrorCode, ProtocolError
from ipfs_accel_node.protocols.hello import Hello, HelloFacts
from ipfs_accel_node.protocols.inference import Request
from ipfs_accel_node.protocols.inference_session import Session

KEY: Final = b"k" * 32
_REQUEST: Final = Request(b"0123456789abcdef", 1, "m", "t", {}, {}, 1000, {})
_ROOT: Final = cids.make_cid(cids.DAG_PB, b"")
_CODES: Final = frozenset(str(code) for code in ErrorCode)
_CONTENT_CODES: Final = frozenset({"hostile-content", "bad-cid", "not-a-model", "bad-input"})
_MODEL_CODES: Final = frozenset({"not-a-model", "unsafe-model", "unsupported-task"})


class WrongErrorError(Exception):
    """A typed error without a code of its part, or without a word for a person."""


@contextmanager
def refusing(*, kind: type[Exception], codes: frozenset[str]) -> Iterator[None]:
    """Swallows the typed error of a part, and says so where it is not what that part promises."""
    try:
        yield
    except kind as error:
        code, message = str(getattr(error, "code", "")), str(getattr(error, "message", ""))
        if code not in codes or not message or "\n" in message:
            raise WrongErrorError(f"{error!r}") from error


def frames(data: bytes) -> None:
    """A link's and a block stream's bytes, cut at a place that the first byte says, and a value."""
    wire, at = data[1:], data[0] if data else 0
    for receive in (*_sessions(), BlockAnswerer().receive, _asking_blocks()):
        with refusing(kind=ProtocolError, codes=frozenset({"protocol-error"})):
            receive(wire[:at])
            receive(wire[at:])
    with refusing(kind=ProtocolError, codes=frozenset({"protocol-error"})):
        values.pack(values.unpack(wire))


def _sessions() -> Iterator[Callable[[bytes], object]]:
    for dialler in (True, False):
        session = Session(dialler=dialler)
        for _ in range(2):
            session.request(_REQUEST, b"")
            session.call("m", b"x" * 100_000)
        yield session.receive


def _asking_blocks() -> Callable[[bytes], object]:
    asker = BlockAsker()
    asker.want([b"c", _ROOT])
    return asker.receive


def hello(data: bytes) -> None:
    """Either side of the hello; nobody who lacks the key gets through."""
    for dialler in (True, False):
        side = Hello(HelloFacts("n", 1), KEY, dialler=dialler, own_peer_id=b"L", peer_id=b"R")
        try:
            side.receive(data)
        except AccelError as error:
            if not isinstance(error.message, str) or not error.code:
                raise WrongErrorError(f"{error!r}") from error
        if side.done:
            raise WrongErrorError("a hello was believed without the key")


def advert(data: bytes) -> None:
    """An advert's body, and the same bytes as a sealed message and as a join token."""
    with refusing(kind=ProtocolError, codes=frozenset({"protocol-error", "version-mismatch"})):
        adverts.encode(adverts.decode(data))
    with refusing(kind=ProtocolError, codes=frozenset({"protocol-error"})):
        sealing.open_sealed(data, cluster_key=KEY)
    with refusing(kind=AccelError, codes=frozenset({"bad-token"})):
        sealing.decode_token(sealing.TOKEN_PREFIX + data.decode("latin-1"))


def dag(data: bytes) -> None:
    """Blocks, each after its length of two bytes: the first is the root, each next one what is wanted next."""
    with refusing(kind=AccelError, codes=frozenset({"bad-cid"})):
        cids.parse_cid(data[:200].decode("latin-1"))
    with refusing(kind=AccelError, codes=_CONTENT_CODES):
        decode_node(data)
    for presume in (True, False):
        blocks = cut_blocks(data)
        with refusing(kind=AccelError, codes=_CONTENT_CODES):
            walk = DagWalk(_ROOT, presume=presume)
            while (wanted := walk.wanted()) and blocks:
                walk.add(wanted[0], blocks.pop(0))
            if not walk.wanted():
                _check_contents(walk.finished())


def _check_contents(contents: Contents) -> None:
    """What was let through is kept as it is, and every leaf lies in its file where the one before it ends."""
    packed = contents.pack()
    if Contents.unpack(packed).pack() != packed:
        raise WrongErrorError("contents do not come back")
    for file in contents.files:
        end = 0
        for number in range(min(file.leaf_count, 1000)):
            offset, length = file.extent(number)
            if offset != end or file.data(number, file.block(number, bytes(length))) != bytes(length):
                raise WrongErrorError(f"leaf {number} of {file.path!r} is not where it belongs")
            end += length
        if file.leaf_count <= 1000 and end != file.size:
            raise WrongErrorError(f"{file.path!r} has leaves of {end} bytes, and {file.size} itself")


def cut_blocks(data: bytes) -> list[bytes]:
    blocks = []
    while len(data) >= 2:
        length = int.from_bytes(data[:2], "big")
        blocks.append(data[2 : 2 + length])
        data = data[2 + length :]
    return blocks


def joined_blocks(*blocks: bytes) -> bytes:
    return b"".join(len(block).to_bytes(2, "big") + block for block in blocks)


def config(data: bytes) -> None:
    """`config.toml`, and after the first zero byte variables of the environment, one a line: `NAME=value`."""
    toml, _, variables = data.partition(b"\0")
    (_folder() / "config.toml").write_bytes(toml)
    environment = {"PATH": os.environ.get("PATH", ""), **dict(_variables(variables))}
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        refusing(kind=AccelError, codes=frozenset({"bad-config"})),
    ):
        json.dumps(node_config.load({}, _folder()).as_dict())


def _variables(lines: bytes) -> Iterator[tuple[str, str]]:
    for line in lines.decode("utf-8", "surrogateescape").splitlines():
        name, _, value = line.partition("=")
        if "\0" not in line:
            yield f"{node_config.ENVIRONMENT_PREFIX}{name}", value


def safetensors(data: bytes) -> None:
    """A model's `config.json` after its length of two bytes, then the header of its weights, framed or as it comes."""
    length = int.from_bytes(data[:2], "big") & 0x7FFF
    header = data[2 + length :]
    as_it_comes = bool(data) and data[0] >= 0x80
    (_folder() / "config.json").write_bytes(data[2 : 2 + length])
    (_folder() / "model.safetensors").write_bytes(
        header if as_it_comes else struct.pack("<Q", len(header)) + header + bytes(4096)
    )
    with refusing(kind=BackendError, codes=_MODEL_CODES):
        inspect(_folder())


def framed_model(config_json: bytes, header: bytes) -> bytes:
    return len(config_json).to_bytes(2, "big") + config_json + header


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="ian-fuzz-")
    _FOLDERS.append(folder)  # it goes when this process ends
    return Path(folder.name)


_FOLDERS: Final[list[tempfile.TemporaryDirectory[str]]] = []

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "hello": hello,
    "advert": advert,
    "dag": dag,
    "config": config,
    "safetensors": safetensors,
}

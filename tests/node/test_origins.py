"""What is gated at a peer is gated here: told plainly it is believed, and silence is no leave."""

from __future__ import annotations

import pytest
from ipfs_accel_node.node.content.store import Origin
from ipfs_accel_node.node.origins import origin_at
from ipfs_accel_node.protocols.errors import AccelError

CID = b"\x01\x70\x12\x20" + bytes(32)
OPEN = {"origin": "hf:owner/model", "license": "mit", "gated": False}
GATED = {"origin": "hf:owner/model", "license": "", "gated": True}
LOST = AccelError("peer-lost", "the peer left")


class Mesh:
    """Peers that answer as they are told to: with a value, or an error."""

    def __init__(self, **answers):
        self._answers = answers

    def link(self, peer_id):
        return _Link(self._answers[peer_id]) if peer_id in self._answers else None


class _Link:
    def __init__(self, answer):
        self.channel = self
        self._answer = answer

    async def call(self, method, arguments, *, timeout):
        assert (method, arguments) == ("origin", {"model": CID})
        if isinstance(self._answer, AccelError):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answers", "origin"),
    [
        ({}, Origin()),
        ({"a": None}, Origin()),
        ({"a": OPEN}, Origin("hf:owner/model", "mit", False)),
        ({"a": OPEN, "b": GATED}, Origin("hf:owner/model", "mit", True)),
        ({"a": GATED, "b": None, "c": LOST}, Origin("hf:owner/model", "", True)),
        ({"a": OPEN, "b": LOST}, Origin("hf:owner/model", "mit", False)),
        ({"a": None, "b": LOST}, Origin("", "", True)),
        ({"a": {"origin": "x" * 9000}}, Origin("x" * 512, "", True)),
        ({"a": {"gated": 0}}, Origin("", "", True)),
        ({"a": ["open"]}, Origin("", "", True)),
    ],
)
async def test_what_peers_say(answers, origin):
    assert await origin_at(Mesh(**answers), [*answers, "not linked"], CID, is_new=True) == origin


async def test_silence_says_nothing_of_a_model_that_is_here():
    assert await origin_at(Mesh(a=LOST), ["a"], CID, is_new=False) == Origin()
    assert (await origin_at(Mesh(a=GATED), ["a"], CID, is_new=False)).gated

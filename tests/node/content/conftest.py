"""Models in folders, and sources of blocks in memory that may do wrong."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

MIB = 1 << 20
WEIGHTS = 24 * MIB + 5


class Source:
    """Serves blocks of a store after `delay` seconds each; after so many good ones it does what `fault` says."""

    def __init__(self, name, store, delay=0.01, fault=None, after=0):
        self.name, self.store, self.delay, self.fault, self.after = name, store, delay, fault, after
        self.asked = Counter()
        self.batches = []
        self.calls_at_once = self.served = 0

    async def fetch(self, cids, deliver):
        self.calls_at_once += 1
        assert self.calls_at_once == 1, "a source is asked for one batch at a time"
        self.batches.append(len(cids))
        try:
            for cid in cids:
                self.asked[cid] += 1
                await trio.sleep(self.delay)
                await self._serve(cid, deliver)
        finally:
            self.calls_at_once -= 1

    async def _serve(self, cid, deliver):
        block = self.store.read_block(cid)
        self.served += 1
        if self.served > self.after and self.fault:
            if self.fault == "dies":
                raise AccelError("peer-lost", "the peer left")
            if self.fault == "breaks":
                raise OSError("a mistake in the source")
            if self.fault == "breaks in a nursery":
                raise ExceptionGroup("mistakes", [AccelError("peer-lost", "the peer left")])
            if self.fault == "says nothing":
                return
            if self.fault == "stalls":
                await trio.sleep_forever()
            if self.fault == "answers what nobody asked":
                cid = b"\x01\x55\x12\x20" + bytes(32)
            block = {
                "lies": bytes(len(block)),
                "lies about length": block + b"x",
                "sends too much": bytes(3 * MIB),
                "lacks": None,
            }.get(self.fault, block)
        await deliver(cid, block)


@pytest.fixture
def source():
    """Makes a source in memory."""
    return Source


def write_model(folder):
    """A folder with some of everything: chunks, repetitions, empty files and folders, an inner folder."""
    (folder / "sub" / "void").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "empty").write_bytes(b"")
    (folder / "weights").write_bytes(random.Random(1).randbytes(WEIGHTS))
    (folder / "same").write_bytes((folder / "weights").read_bytes()[: 2 * MIB])
    (folder / "zeros").write_bytes(bytes(3 * MIB + 1))
    return folder


@pytest.fixture
def store(tmp_path):
    """The store of this node."""
    return ModelStore(tmp_path / "content")


@pytest.fixture(scope="session")
def far(tmp_path_factory):
    """A store elsewhere that has a model, and the model; for reading only."""
    folder = tmp_path_factory.mktemp("elsewhere")
    elsewhere = ModelStore(folder / "content")
    return elsewhere, elsewhere.add(write_model(folder / "model"), name="far")

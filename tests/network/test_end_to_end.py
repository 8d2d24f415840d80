"""The whole path over real processes: two nodes, one model that travels by CID, jobs that route and fall back."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from cluster import NodeProcess
from ipfs_accel_node import Client
from ipfs_accel_node.backends.making import make_sentence_model

TEXTS = ["a cat", "a kitten", "interest rates rose"]


@pytest.fixture
def two_nodes(tmp_path: Path):
    with NodeProcess("seed", tmp_path / "seed", "--backends", "cpu", "--threads", "1") as seed:
        token = seed.wait_ready()["token"]
        with NodeProcess("entry", tmp_path / "entry", "--backends", "cpu", "--join", token) as entry:
            entry.wait_ready()
            yield seed, entry


def test_one_routed_embedding_and_the_local_fallback(two_nodes, tmp_path):
    seed, entry = two_nodes
    make_sentence_model(tmp_path / "model")
    with Client(data_dir=seed.data_dir) as at_seed, Client(data_dir=entry.data_dir) as at_entry:
        cid = at_seed.add_model(tmp_path / "model", name="tiny")["cid"]
        seed.wait_measured(cid)
        entry.wait_offer(cid)

        routed = at_entry.submit(cid, "feature-extraction", TEXTS)
        vectors = routed.result(timeout=60)
        assert routed.report["node"] == seed.peer_id
        assert np.allclose(vectors, at_seed.embed(cid, TEXTS), atol=1e-6)

        assert at_entry.get_model(cid)["cid"] == cid
        seed.send_signal(signal.SIGKILL)
        alone = at_entry.submit("tiny", "feature-extraction", TEXTS)
        assert np.allclose(alone.result(timeout=120), vectors, atol=1e-5)
        assert alone.report["local"] is True

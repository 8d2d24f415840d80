"""Two nodes that run a model in different precisions: a job that asks for one runs there, or is refused."""

from __future__ import annotations

import pytest
from cluster import NodeProcess
from ipfs_accel_node import Client, JobError
from ipfs_accel_node.backends.making import make_sentence_model


@pytest.fixture
def two_precisions(tmp_path):
    with NodeProcess("exact", tmp_path / "exact", "--backends", "cpu", "--threads", "1") as exact:
        token = exact.wait_ready()["token"]
        small = ("--backends", "cpu", "--threads", "1", "--precision", "int8", "--join", token)
        with NodeProcess("small", tmp_path / "small", *small) as other:
            other.wait_ready()
            yield exact, other


def test_a_job_runs_in_the_precision_that_it_asks_for(two_precisions, tmp_path):
    exact, small = two_precisions
    make_sentence_model(tmp_path / "model")
    with Client(data_dir=exact.data_dir) as at_exact, Client(data_dir=small.data_dir) as at_small:
        cid = at_exact.add_model(tmp_path / "model", name="tiny")["cid"]
        at_small.get_model(cid)
        exact.wait_measured(cid)
        small.wait_measured(cid)
        exact.wait_offer(cid)
        vectors = {}
        for precision, node in (("f32", exact), ("int8", small)):
            job = at_exact.submit(cid, "feature-extraction", "a cat", precision=precision)
            vectors[precision] = job.result(timeout=60)
            assert (job.report["precision"], job.report["node"]) == (precision, node.peer_id)
            assert job.report["implementation"]["evidence"]["canary"]["parts"] == 1
            assert job.report["memory_bytes"] > 0
            assert job.report["figures"]["ms_per_query"] > 0
        assert 1e-5 < abs(vectors["f32"] - vectors["int8"]).max() < 0.01
        with pytest.raises(JobError) as refused:
            at_exact.submit(cid, "feature-extraction", "a cat", precision="bf16").result(timeout=60)
        assert refused.value.code == "unsupported-precision"

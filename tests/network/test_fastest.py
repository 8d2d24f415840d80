"""Jobs go to the node that was measured to be fastest, or stay where they are when nobody is faster."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import real_model
from cluster import NodeProcess

pytestmark = pytest.mark.alone

TEXT = "A man is playing guitar in the garden"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """One node with OpenVINO on two threads, one with torch on one, and an entry node that computes nothing."""
    folder = tmp_path_factory.mktemp("nodes")
    model = real_model.ensure("minilm")
    with NodeProcess("openvino", folder / "openvino", "--backends", "openvino", "--threads", "2") as first:
        join = ("--join", first.wait_ready()["token"])
        with (
            NodeProcess("torch", folder / "torch", "--backends", "cpu", "--threads", "1", *join) as second,
            NodeProcess("entry", folder / "entry", "--backends", "none", *join) as entry,
        ):
            with first.client() as client:
                cid = client.add_model(model, "minilm")["cid"]
            second.wait_ready()
            second.wait_offer(cid)
            with second.client() as client:
                client.get_model(cid)
            first.wait_measured(cid)
            second.wait_measured(cid)
            wait_for_both(entry, cid)
            yield {"openvino": first, "torch": second, "entry": entry}, cid


def offers(node, cid):
    """Milliseconds that each node measured for a text as long as `TEXT`."""
    with node.client() as client:
        return {
            offer["node_name"]: offer["fixed_ms"] + offer["per_kib_ms"] * len(TEXT) / 1024
            for model in client.models()
            if model["cid"] == cid
            for offer in model["nodes"]
            if offer["fixed_ms"] is not None
        }


def wait_for_both(node, cid):
    node.wait_for("both measured offers", lambda: len(offers(node, cid)) == 2 or None, 60)


def serve(node, cid, count):
    """Who served `count` jobs that were submitted at a node one after the other."""
    served, vectors = Counter(), []
    with node.client() as client:
        for _ in range(count):
            job = client.submit(cid, "feature-extraction", [TEXT])
            vectors.append(job.result(60)[0])
            served[job.report["node_name"]] += 1
    assert np.allclose(vectors, vectors[0], atol=1e-5)
    return served


@pytest.mark.alone
def test_at_least_95_of_100_jobs_go_to_the_faster_node(nodes):
    processes, cid = nodes
    measured = offers(processes["entry"], cid)
    fastest, slowest = sorted(measured, key=measured.__getitem__)
    assert measured[slowest] > 1.3 * measured[fastest], "these two are too much alike to prove anything"
    assert serve(processes["entry"], cid, 100)[fastest] >= 95


def test_a_job_stays_where_it_is_when_nobody_is_faster(nodes):
    processes, cid = nodes
    measured = offers(processes["entry"], cid)
    fastest = min(measured, key=measured.__getitem__)
    assert serve(processes[fastest], cid, 20)[fastest] == 20


def test_where_it_runs_can_be_forced(nodes):
    processes, cid = nodes
    with processes["entry"].client() as client:
        for name in ("openvino", "torch"):
            for on in (name, processes[name].peer_id):
                job = client.submit(cid, "feature-extraction", TEXT, on=on)
                assert job.result(60).shape == (384,)
                assert job.report["node_name"] == name
    with processes["torch"].client() as client:
        job = client.submit(cid, "feature-extraction", TEXT, on="local")
        job.result(60)
        assert job.report["local"] is True


def test_the_choice_is_explained(nodes):
    processes, cid = nodes
    with processes["entry"].client() as client:
        job = client.submit(cid, "feature-extraction", TEXT)
        job.result(60)
    candidates = job.report["route"]["candidates"]
    assert {candidate["node_name"] for candidate in candidates} == {"openvino", "torch"}
    assert [each["predicted_s"] for each in candidates] == sorted(each["predicted_s"] for each in candidates)
    for candidate in candidates:
        assert sum(candidate["parts"].values()) == pytest.approx(candidate["predicted_s"])
    assert job.report["precision"] == "f32"
    assert job.report["implementation"]["library"].split()[0] in ("openvino", "torch")


def test_a_hundred_callers_at_once_each_get_their_own(nodes):
    processes, cid = nodes
    texts = [f"text number {number} " + "and more " * (number % 7) for number in range(100)]
    with processes["entry"].client() as client, processes["torch"].client() as other:
        jobs = [client.submit(cid, "feature-extraction", text, timeout=120) for text in texts]
        expected = other.embed(cid, texts, on="local", timeout=120)
        for job, vector in zip(jobs, expected, strict=True):
            assert np.allclose(job.result(120), vector, atol=1e-5)
        assert client.status()["jobs"]["running"] == 0


def test_without_the_fast_node_the_next_job_runs_elsewhere(nodes):
    processes, cid = nodes
    measured = offers(processes["entry"], cid)
    fastest, slowest = sorted(measured, key=measured.__getitem__)
    processes[fastest].kill()
    assert serve(processes["entry"], cid, 3)[slowest] == 3

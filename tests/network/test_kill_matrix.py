"""A node, or its worker, is killed at an exact stage of a job: the job completes once, elsewhere, and nothing leaks."""

from __future__ import annotations

import pytest
from cluster import NodeProcess, make_echo_model
from striking import Held, offers_of, resources, strike, wait_until, worker_of

STAGES = ["before-admission", "load", "compute", "before-result"]


CASES = [(stage, victim) for stage in STAGES for victim in ("node", "worker")] + [("compute", "stopped node")]


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_the_job_completes_once_elsewhere(three_nodes, tmp_path, stage, victim):
    entry, first, spare = three_nodes
    held = Held(tmp_path / "hold", stage)
    settings = {"load_hold": str(held.folder)} if stage == "load" else {}
    model = make_echo_model(tmp_path / "model", **settings)
    with entry.client() as client, first.client() as at_first, spare.client() as at_spare:
        wait_until(lambda: client.status()["peers"] == 2, what="both links")
        cid = at_first.add_model(model, name="echo-model")["cid"]
        wait_until(lambda: offers_of(client, cid) == ["first"], what="the first offer")
        before = resources(entry)
        job = client.submit(cid, "echo", ["hello"], timeout=60, **held.params)
        held.wait()
        wait_until(lambda: offers_of(at_spare, cid), what="the first offer at the spare")
        at_spare.get_model(cid)
        wait_until(lambda: sorted(offers_of(client, cid)) == ["first", "spare"], what="the second offer")
        strike(first, victim)
        held.release()

        assert job.result(60)["echo"] == ["hello"]
        outcomes = [attempt["outcome"] for attempt in job.report["attempts"]]
        assert outcomes.count("ok") == 1
        assert outcomes[-1] == "ok"
        jobs = client.status()["jobs"]
        assert (jobs["running"], jobs["completed"], jobs["failed"]) == (0, 1, 0)
        wait_until(lambda: resources(entry) <= before, what="descriptors and children back where they were")
    if first.running:
        first.kill()  # one that is stopped would not take a gentler word


def test_a_node_alone_tries_again_when_its_worker_is_back(tmp_path):
    held = Held(tmp_path / "hold", "compute")
    model = make_echo_model(tmp_path / "model")
    with NodeProcess("alone", tmp_path / "alone", "--backends", "echo") as node:
        node.wait_ready()
        with node.client() as client:
            cid = client.add_model(model)["cid"]
            job = client.submit(cid, "echo", "hello", timeout=60, **held.params)
            held.wait()
            worker_of(node).kill()
            held.release()
            assert job.result(60)["echo"] == "hello"
            assert [attempt["outcome"] for attempt in job.report["attempts"]] == ["worker-died", "ok"]

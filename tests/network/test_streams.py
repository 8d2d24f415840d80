"""A stream survives whatever computes it: killed at an exact stage, it goes on elsewhere without a gap or a repeat."""

from __future__ import annotations

import pytest
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node import AccelError, JobError
from ipfs_accel_node.node.client_requests import make_request
from ipfs_accel_node.node.client_stream import TextStream
from ipfs_accel_node.node.client_text import Asked
from striking import Held, offers_of, resources, strike, wait_until, worker_of

TOKENS = 20
WHOLE = "".join(f"{place} " for place in range(TOKENS))
#: stage → tokens that were given out by then
STAGES = {"before-admission": 0, "load": 0, "compute": 0, "token-0": 0, "token-1": 1, "token-10": 10,
          f"token-{TOKENS - 1}": TOKENS - 1, "before-result": TOKENS}  # fmt: skip
CASES = [
    *((stage, victim) for stage in STAGES for victim in ("node", "worker")),
    ("token-10", "stopped node"),
]


def asked_for(cid, **params) -> Asked:
    """An echo job whose output is a stream of `TOKENS` tokens."""
    params = {"tokens": TOKENS, "token_ms": 1, **params}
    request, payload = make_request(cid, "echo", "x", params, seconds=60, on=None, job_id=None, stream=True)
    return Asked(request, payload, 60)


def stream_of(client, asked: Asked) -> TextStream:
    return client._send(TextStream(asked), asked)


@pytest.mark.parametrize(("stage", "victim"), CASES)
def test_a_stream_goes_on_elsewhere(three_nodes, tmp_path, stage, victim):
    entry, first, spare = three_nodes
    held = Held(tmp_path / "hold", stage)
    settings = {"load_hold": str(held.folder)} if stage == "load" else {}
    model = make_echo_model(tmp_path / "model", **settings)
    with entry.client() as client, first.client() as at_first, spare.client() as at_spare:
        wait_until(lambda: client.status()["peers"] == 2, what="both links")
        cid = at_first.add_model(model, name="echo-model")["cid"]
        wait_until(lambda: offers_of(client, cid) == ["first"], what="the first offer")
        before = resources(entry)
        stream = stream_of(client, asked_for(cid, **held.params))
        held.wait()
        wait_until(lambda: len(stream.token_ids) == STAGES[stage], what="the tokens so far")
        wait_until(lambda: offers_of(at_spare, cid), what="the first offer at the spare")
        at_spare.get_model(cid)
        wait_until(lambda: sorted(offers_of(client, cid)) == ["first", "spare"], what="the second offer")
        strike(first, victim)
        held.release()

        assert "".join(stream) == WHOLE == stream.text
        assert stream.token_ids == list(range(TOKENS)) == stream.result()["token_ids"]
        attempts = stream.report["attempts"]
        assert [attempt["outcome"] for attempt in attempts].count("ok") == 1
        assert sum(attempt["outputs"] for attempt in attempts) == TOKENS
        if victim != "worker":
            assert attempts[0]["outputs"] == STAGES[stage]
        wait_until(lambda: resources(entry) <= before, what="descriptors and children back where they were")
        assert client.status()["jobs"]["running"] == 0
    if first.running:
        first.kill()  # one that is stopped would not take a gentler word


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with NodeProcess("node", folder / "data", "--backends", "echo") as process:
        with process.client() as client:
            client.add_model(make_echo_model(folder / "model"), "echo")
        yield process


def test_a_node_alone_goes_on_when_its_worker_is_back(node, tmp_path):
    held = Held(tmp_path / "hold", "token-7")
    with node.client() as client:
        stream = stream_of(client, asked_for("echo", **held.params))
        held.wait()
        wait_until(lambda: len(stream.token_ids) == 7)
        worker_of(node).kill()
        held.release()
        assert "".join(stream) == WHOLE
        assert [attempt["outputs"] for attempt in stream.report["attempts"]] == [7, TOKENS - 7]


@pytest.mark.parametrize("stage", ["before-admission", "load", "compute", "token-9", "before-result"])
def test_when_the_entry_node_dies_the_rest_is_asked_for_again(tmp_path, stage):
    """Its client gets a clear error and, when it is back, the rest of the same job; the peer that computed is free."""
    held, had = Held(tmp_path / "hold", stage), STAGES.get(stage, 9)
    settings = {"load_hold": str(held.folder)} if stage == "load" else {}
    with NodeProcess("peer", tmp_path / "peer", "--backends", "echo") as peer:
        flags = ("--backends", "none", "--join", peer.wait_ready()["token"])
        with peer.client() as at_peer:
            cid = at_peer.add_model(make_echo_model(tmp_path / "model", **settings), "echo")["cid"]
            with NodeProcess("mortal", tmp_path / "data", *flags) as entry:
                client = entry.client()
                wait_until(lambda: offers_of(client, cid) == ["peer"], what="the offer")
                stream = stream_of(client, asked_for(cid, **held.params))
                held.wait()
                wait_until(lambda: len(stream.token_ids) == had, what="the tokens so far")
                entry.kill()
                got = []
                with pytest.raises(JobError) as failed:
                    got.extend(stream)
                assert (failed.value.code, bool(failed.value.hint)) == ("peer-lost", True)
                assert "".join(got) == stream.text == "".join(f"{place} " for place in range(had))
            held.release()
            wait_until(lambda: at_peer.status()["backends"][0]["queued"] == 0, what="the end of the job at the peer")
            with NodeProcess("mortal", tmp_path / "data", *flags) as entry:
                entry.wait_ready()
                wait_until(lambda: offers_of(client, cid) == ["peer"], what="the offer again")
                rest = client.resume_stream(stream)
                assert rest.job_id == stream.job_id
                assert "".join(rest) == WHOLE[len("".join(got)) :]
                assert (rest.text, rest.token_ids) == (WHOLE, list(range(TOKENS)))
                assert rest.report["attempts"][-1]["outputs"] == TOKENS - had
                client.close()


def test_the_same_job_is_computed_once_however_often_it_is_asked_for(node):
    asked = asked_for("echo")
    with node.client() as client:
        first = stream_of(client, asked)
        assert "".join(first) == WHOLE
    with node.client() as client:
        again = stream_of(client, asked)
        assert "".join(again) == WHOLE
        assert again.report["repeated"]
        assert again.result() == first.result()
        other = stream_of(client, Asked(asked.request, asked_for("echo", tokens=3).payload, 60))
        assert "".join(other) == WHOLE
        with pytest.raises(AccelError, match="that of another job"):
            client.submit("echo", "echo", "something else", job_id=first.job_id).result(10)


def test_leaving_the_loop_cancels_the_job_down_to_the_worker(node):
    with node.client() as client:
        for piece in stream_of(client, asked_for("echo", tokens=100_000, token_ms=5)):
            assert piece.startswith("0 ")
            break
        wait_until(lambda: client.status()["jobs"]["running"] == 0, what="the job's end")
        assert client.submit("echo", "echo", "next").result(20)["echo"] == "next"


def test_what_is_read_late_is_all_there(node):
    with node.client() as client:
        stream = stream_of(client, asked_for("echo", tokens=5000, token_ms=0))
        assert stream.result(60)["token_ids"] == list(range(5000))
        assert "".join(stream) == "".join(f"{place} " for place in range(5000))

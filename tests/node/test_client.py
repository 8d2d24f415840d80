"""The blocking client against a door that answers as told, silence and garbage included."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ipfs_accel_node import AccelError, Client, JobError
from ipfs_accel_node.node import client_jobs, client_requests
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference_session import CallReceived, Cancelled, RequestReceived


@pytest.fixture
def quick(monkeypatch):
    """The node gets no time beyond the deadline to say that it has passed."""
    monkeypatch.setattr(client_jobs, "GRACE_S", 0.0)


def vectors_of(texts):
    """Stands for nobody's model: each text's own bytes, so that an answer shows which question it belongs to."""
    return np.array([[*text.encode()[:4].ljust(4)] for text in texts], dtype=np.float32)


def test_a_hundred_embeddings_at_once_each_get_their_own_answer(open_door):
    held = []

    def answer_when_all_are_there(session, event):
        if isinstance(event, RequestReceived):
            held.append((event.request_id, values.unpack(event.payload)))
            session.accept(event.request_id, len(held), 0)
        if len(held) == 100:
            for request_id, texts in reversed(held):
                session.result(request_id, {}, values.pack(vectors_of(texts)))
            held.clear()

    door = open_door(answer_when_all_are_there, piece=1000)
    got = {}
    with Client(door.data_dir) as client:

        def ask(number):
            got[number] = client.embed("m", [f"{number:04}", "same"])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert sorted(got) == list(range(100))
    assert all(np.array_equal(got[number], vectors_of([f"{number:04}", "same"])) for number in got)
    assert got[0].dtype == np.float32


def test_large_inputs_and_results_pass_beside_small_ones(open_door):
    door = open_door()
    array = np.random.default_rng(0).random(1_000_000)
    with Client(door.data_dir) as client:
        large = [client.submit("m", "t", array) for _ in range(4)]
        assert client.status()["method"] == "status"
        assert all(np.array_equal(job.result(20), array) for job in large)


def test_answers_that_come_byte_by_byte(open_door):
    door = open_door(piece=1)
    with Client(door.data_dir) as client:
        assert client.submit("m", "t", {"text": "hä", "list": [1, None, b"x"]}).result(10) == {
            "text": "hä",
            "list": [1, None, b"x"],
        }


def test_what_is_sent(open_door):
    door = open_door()
    with Client(door.data_dir, timeout=7) as client:
        client.embed("m", ["hä", "x"], pooling="cls", on="desk")
        client.submit("m", "t", "x", job_id=b"0123456789abcdef", timeout=2).result()
    first, second = (event.request for event in door.wait_for(RequestReceived, 2))
    assert (first.model, first.task, first.attempt) == ("m", "feature-extraction", 0)
    assert first.params == {"pooling": "cls"}
    assert first.options == {"on": "desk"}
    assert first.work == {"bytes": 4}
    assert (first.remaining_ms, second.remaining_ms) == (7000, 2000)
    assert second.job_id == b"0123456789abcdef"


def test_progress_and_report(open_door):
    door = open_door()
    told = []
    with Client(door.data_dir) as client:
        job = client.submit("m", "t", "x", on_progress=lambda *what: told.append(what))
        assert job.result() == "x"
    assert told == [("running", 1, 2, "m")]
    assert job.report == {"model": "m"}
    assert job.done()
    assert job.result(0) == "x"


def test_every_operation_reaches_its_method(open_door, tmp_path, monkeypatch):
    door = open_door()
    monkeypatch.chdir(tmp_path)
    with Client(door.data_dir) as client:
        assert client.add_model("folder", "n") == {
            "method": "model.add",
            "path": str(tmp_path / "folder"),
            "name": "n",
            "anyway": False,
        }
        assert client.add_model("folder", anyway=True)["anyway"] is True
        assert client.add_model("folder", cid_profile="unixfs-v0-2015")["cid_profile"] == "unixfs-v0-2015"
        assert client.get_model("m") == {"method": "model.get", "model": "m", "name": None}
        assert client.remove_model("m") == {"method": "model.rm", "model": "m"}
        assert client.pin_model("m") == {"method": "pin.add", "model": "m"}
        assert client.unpin_model("m") == {"method": "pin.rm", "model": "m"}
        assert client.pause(wait_s=2.5) == {"method": "pause", "wait_s": 2.5}
        assert client.resume() == {"method": "resume"}
        assert client.model_info("m") == {"method": "model.info", "model": "m"}
        assert client.config() == {"method": "config"}
        assert client.peers() == client.models() == ["method"]


def test_cancelling_reaches_the_node_and_nothing_comes_after(open_door):
    door = open_door("nothing")
    with Client(door.data_dir) as client:
        job = client.submit("m", "t", "x")
        job.cancel()
        with pytest.raises(JobError, match="cancelled"):
            job.result(5)
        assert door.wait_for(Cancelled)[0].request_id == door.wait_for(RequestReceived)[0].request_id
        job.cancel()
        assert job.done()
        assert job.report == {}


def test_whatever_wins_a_race_stays(open_door):
    door = open_door()
    with Client(door.data_dir) as client:
        for _ in range(200):
            job = client.submit("m", "t", "x")
            job.cancel()
            outcomes = set()
            for _ in range(3):
                try:
                    outcomes.add(job.result(5))
                except JobError as error:
                    outcomes.add(error.code)
            assert outcomes in ({"x"}, {"cancelled"})
        assert client.submit("m", "t", "after").result(5) == "after"


def test_a_callback_that_raises_harms_nobody(open_door, caplog):
    door = open_door()
    with Client(door.data_dir) as client:

        def fail(*_):
            raise ValueError("mine")

        assert client.submit("m", "t", "x", on_progress=fail).result(5) == "x"
        assert client.submit("m", "t", "y").result(5) == "y"
    assert "on_progress failed" in caplog.text


def test_a_callback_cannot_wait_but_may_close(open_door):
    door = open_door()
    told = []
    with Client(door.data_dir) as client:

        def ask(*_):
            try:
                client.status()
            except RuntimeError as error:
                told.append(str(error))

        client.submit("m", "t", "x", on_progress=ask).result(5)
        client.submit("m", "t", "y", on_progress=lambda *_: client.close()).result(5)
    assert "cannot wait" in told[0]


def test_a_job_ends_at_its_own_deadline_whatever_the_node_does(open_door, quick):
    door = open_door("nothing")
    with Client(door.data_dir) as client:
        began = time.monotonic()
        job = client.submit("m", "t", "x", timeout=0.2)
        with pytest.raises(TimeoutError):
            job.result(0.01)
        with pytest.raises(JobError, match="deadline-exceeded") as failed:
            job.result()
        assert "doctor" in failed.value.hint
        with pytest.raises(JobError, match="deadline-exceeded"):
            client.embed("m", "x", timeout=0.1)
        with pytest.raises(AccelError, match="deadline-exceeded") as refused:
            client.status(timeout=0.1)
        assert not isinstance(refused.value, JobError)
        assert time.monotonic() - began < 5
        door.wait_for(Cancelled, 3)


def test_a_node_that_reads_nothing_holds_nobody_up(open_door, quick):
    door = open_door("nothing", reads=False)
    with Client(door.data_dir) as client:
        began = time.monotonic()
        large = [client.submit("m", "t", bytes(2_000_000), timeout=0.3) for _ in range(3)]
        small = client.submit("m", "t", "x", timeout=0.3)
        for job in (*large, small):
            with pytest.raises(JobError, match="deadline-exceeded"):
                job.result()
        assert time.monotonic() - began < 5


def test_a_long_operation_may_take_any_time_but_not_be_silent(open_door, quick, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.client.SILENCE_TIMEOUT_S", 0.4)

    def answer_slowly(session, event):
        if isinstance(event, CallReceived) and event.method == "model.get":
            threading.Thread(target=fetch, args=(session, event.request_id), daemon=True).start()

    def fetch(session, request_id):
        for done in range(4):
            time.sleep(0.2)
            session.progress(request_id, "fetching", done, 4)
            door.send(session.data_to_send())
        session.result(request_id, {}, values.pack({"cid": "c"}))
        door.send(session.data_to_send())

    door = open_door(answer_slowly)
    with Client(door.data_dir) as client:
        began = time.monotonic()
        assert client.get_model("m") == {"cid": "c"}
        assert time.monotonic() - began > 0.7
        with pytest.raises(AccelError, match="deadline-exceeded"):
            client.add_model("/somewhere")


def test_a_node_that_dies_fails_what_is_open_and_is_found_again(open_door):
    door = open_door("nothing")
    with Client(door.data_dir) as client:
        jobs = [client.submit("m", "t", bytes(size)) for size in (1, 3_000_000)]
        door.close()
        for job in jobs:
            with pytest.raises(JobError, match="the node went away") as failed:
                job.result(5)
            assert failed.value.code == "peer-lost"
        with pytest.raises(AccelError, match="not-running") as refused:
            client.status()
        assert "ipfs-accel-node start" in refused.value.hint
        open_door()
        assert client.submit("m", "t", "again").result(5) == "again"


def test_a_peer_that_the_node_lost_is_not_taken_for_the_node(open_door):
    def refuse(session, event):
        if isinstance(event, RequestReceived):
            session.refuse(event.request_id, "peer-lost", "desk went away", "Ask another.")

    door = open_door(refuse)
    with Client(door.data_dir) as client:
        with pytest.raises(JobError) as failed:
            client.submit("m", "t", "x").result(5)
        assert (failed.value.message, failed.value.hint) == ("desk went away", "Ask another.")
        with pytest.raises(JobError, match="desk went away"):
            client.submit("m", "t", "x").result(5)


@pytest.mark.parametrize("garbage", [b"\xff" * 100, b"\0\0\0\1\xc1", b"\0\0\0\4\x93\x07\x01\x01"], ids=bytes.hex)
def test_a_node_that_breaks_the_protocol_fails_what_is_open(open_door, garbage):
    door = open_door("nothing")
    with Client(door.data_dir) as client:
        job = client.submit("m", "t", "x")
        door.wait_for(RequestReceived)
        door.send(garbage)
        with pytest.raises(JobError) as failed:
            job.result(5)
        assert failed.value.code == "protocol-error"


def test_a_result_that_cannot_be_read_fails_its_job_alone(open_door):
    def answer(session, event):
        if isinstance(event, RequestReceived):
            session.accept(event.request_id, 0, 0)
            session.result(event.request_id, {}, b"\xc1" if event.request.model == "bad" else event.payload)

    door = open_door(answer)
    with Client(door.data_dir) as client:
        bad = client.submit("bad", "t", "x")
        for _ in range(2):
            with pytest.raises(JobError, match="protocol-error"):
                bad.result(5)
        assert client.submit("good", "t", "x").result(5) == "x"


def test_closing_fails_what_is_open_and_ends_the_client(open_door):
    door = open_door("nothing")
    client = Client(door.data_dir)
    job = client.submit("m", "t", "x")
    client.close()
    with pytest.raises(JobError, match="closed") as failed:
        job.result(5)
    assert failed.value.code == "peer-lost"
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.status()


def test_nothing_is_left_of_clients_that_were_closed(open_door):
    door = open_door()
    with Client(door.data_dir) as first:
        first.status()  # by then the door has its end of this one, which counts before and after
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with Client(door.data_dir) as client:
            client.status()
    door.wait_for(CallReceived, 21)
    ours = [thread for thread in threading.enumerate() if thread.name == "ipfs-accel-node reader"]
    assert ours == []
    assert len(list(Path("/proc/self/fd").iterdir())) - files <= 20  # the door keeps its ends until it is closed
    assert threading.active_count() - threads <= 20


BAD = [
    ({"model": ""}, "bad-input"),
    ({"model": None}, "bad-input"),
    ({"model": "\udcff"}, "bad-input"),
    ({"task": 5}, "bad-input"),
    ({"inputs": ...}, "bad-input"),
    ({"inputs": "\udcff"}, "bad-input"),
    ({"inputs": bytes(65 << 20)}, "too-large"),
    ({"model": "x" * 20_000}, "too-large"),
    ({"parameter": "x" * 70_000}, "too-large"),
    ({"parameter": ...}, "bad-input"),
    ({"on": ""}, "bad-input"),
    ({"job_id": b"short"}, "bad-input"),
    ({"job_id": "x" * 16}, "bad-input"),
    *(({"timeout": value}, "bad-input") for value in (0, -1, float("nan"), float("inf"), "5", 1e30)),
]


@pytest.mark.parametrize(("given", "code"), BAD, ids=lambda case: ascii(case)[:40])
def test_bad_arguments_are_told_before_anything_is_sent(open_door, given, code):
    door = open_door()
    with Client(door.data_dir) as client:
        with pytest.raises(AccelError) as failed:
            client.submit(**{"model": "m", "task": "t", "inputs": "x", **given})
        assert failed.value.code == code
        assert client.submit("m", "t", "fine").result(5) == "fine"
    assert len(door.wait_for(RequestReceived)) == 1


@pytest.mark.parametrize("texts", [None, 5, [1], ["a", None]])
def test_what_is_embedded_is_text(open_door, texts):
    door = open_door()
    with Client(door.data_dir) as client:
        with pytest.raises(AccelError, match="bad-input"):
            client.embed("m", texts)
        assert client.embed("m", (text for text in "ab")) == ["a", "b"]


def test_work_is_counted_without_a_model():
    assert client_requests.count_bytes("hä") == 3
    assert client_requests.count_bytes(["a", {"x": "bc", "y": [b"def", 5, None]}]) == 6

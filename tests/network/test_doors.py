"""The local socket, treated badly: whatever comes in, a client is told in one line, and the node serves on."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from contextlib import ExitStack, suppress

import pytest
from cluster import NodeProcess
from ipfs_accel_node.protocols import framing, inference, values
from ipfs_accel_node.protocols.errors import AccelError
from ipfs_accel_node.protocols.inference import Call, Ping, Request
from ipfs_accel_node.protocols.inference_session import Session

DEADLINE_S = 10.0


@pytest.fixture
def watch(victim, make_watch):
    return make_watch(victim)


def connected(node) -> socket.socket:
    """Waits while the node has not yet taken those that came before."""
    connection = socket.socket(socket.AF_UNIX)
    wait_until(lambda: connection.connect_ex(node.ready["socket"]) == 0, "a connection", DEADLINE_S)
    connection.settimeout(DEADLINE_S)
    return connection


def wait_until(condition, what, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.001)


def send_until_dropped(connection, data, most=1 << 20) -> int:
    """Sends the same again and again and never reads; how much went before the other side hung up or stood still."""
    sent = 0
    connection.settimeout(1.0)
    with suppress(OSError):
        while sent < most:
            connection.sendall(data)
            sent += len(data)
    return sent


# --- what is no protocol

GARBAGE = {
    "noise": os.urandom(100_000),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "4 GiB announced": b"\xff\xff\xff\xff",
    "64 KiB and one announced": struct.pack("!I", framing.MAX_FRAME + 1),
    "a frame of noise": struct.pack("!I", 60_000) + os.urandom(60_000),
    "an answer that was not asked for": inference.Accepted(0, 0).to_frame(1),
    "an id of its own parity": Call("status", 0, values.pack({})).to_frame(2),
    "a body that was not announced": inference.Body(b"x").to_frame(1),
    "a body beyond its credit": Call("status", 200_000, b"").to_frame(1)
    + inference.Body(bytes(32_000)).to_frame(1) * 7,
    "nested deep": struct.pack("!I", 5001) + b"\x91" * 5000 + b"\x01",
    "an id twice": Call("status", 0, values.pack({})).to_frame(1) * 2,
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_no_protocol_ends_that_connection_only(victim, watch, garbage):
    with watch, connected(victim) as connection:
        connection.sendall(GARBAGE[garbage])
        if garbage in ("noise", "text"):  # may begin as half a frame
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


def test_half_a_frame_and_silence_hurt_nobody(victim, watch):
    with watch, ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(connected(victim))
            connection.sendall(Call("status", 0, values.pack({})).to_frame(1)[:-3])
        watch.serves()


def test_a_byte_at_a_time_is_slow_and_no_more(victim, watch):
    with watch, connected(victim) as connection:
        for byte in Call("status", 0, values.pack({})).to_frame(1):
            connection.sendall(bytes([byte]))
            watch.serves()
        assert connection.recv(100)


def test_a_thousand_connections(victim, watch):
    with watch, ExitStack() as stack:
        for _ in range(1000):
            with suppress(OSError):
                stack.enter_context(connected(victim))


def test_a_thousand_connections_one_after_the_other(victim, watch):
    with watch:
        for _ in range(1000):
            connected(victim).close()


# --- floods of what is allowed, whose answers nobody reads

FLOODS = {
    "pings": Ping(1).to_frame(0) * 100_000,
    "unknown messages": b"".join(framing.encode(99, number) for number in range(1, 9999, 2)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_that_nobody_reads_the_answers_of(victim, watch, flood):
    with watch, connected(victim) as connection:
        send_until_dropped(connection, FLOODS[flood])


@pytest.mark.parametrize(
    ("opening", "most"),
    [
        (lambda: Call("status", 0, values.pack({})), 256 << 10),
        (lambda: Call("no such method", 0, values.pack({})), 1 << 20),
        (lambda: Request(os.urandom(16), 1, "echo-model", "echo", {}, {}, 60_000, {}, 0, values.pack("x" * 40_000)),
         8 << 20),
        (lambda: Request(os.urandom(16), 1, "nonsense", "echo", {}, {}, 60_000, {}, 0, b""), 1 << 20),
    ],
    ids=["calls", "unknown calls", "jobs", "jobs for nobody"],
)  # fmt: skip
def test_a_flood_of_requests_whose_answers_nobody_reads(victim, watch, opening, most):
    with watch, connected(victim) as connection:
        connection.settimeout(3.0)
        sent, number = 0, 1
        with suppress(OSError):
            while sent < most:
                batch = b"".join(opening().to_frame(number + 2 * place) for place in range(50))
                number += 100
                connection.sendall(batch)
                sent += len(batch)
        watch.serves(20)


def test_requests_that_are_cancelled_at_once(victim, watch):
    with watch, connected(victim) as connection:
        session = Session(dialler=True)
        for _ in range(2000):
            session.cancel(session.request(Request(os.urandom(16), 1, "echo-model", "echo", {}, {}, 9000, {}), b"\xc0"))
        while data := session.data_to_send():
            connection.sendall(data)
        watch.serves()
    assert running(victim) == 0


def running(node) -> int:
    with node.client() as client:
        return client.status()["jobs"]["running"]


def test_results_that_nobody_reads(victim, make_watch):
    """Each job has an answer of 20 MiB: what waits to be read has a bound, and what is over it is refused."""
    payload = values.pack(["x" * (20 << 20)])
    with make_watch(victim, most=512 << 20) as watch, connected(victim) as connection:
        session = Session(dialler=True)
        session._grant = lambda _number: None  # what it is not granted, the node keeps
        refused = []
        for _ in range(12):
            number = session.request(Request(os.urandom(16), 1, "echo-model", "echo", {}, {}, 60_000, {}), payload)
            pump_until_answered(session, connection, number, refused)
        assert "busy" in refused
        watch.serves()


def pump_until_answered(session, connection, number, refused):
    """Carries one request's inputs over, and reads until its result is announced or it is refused."""
    connection.settimeout(5)
    with suppress(TimeoutError):
        while True:
            while data := session.data_to_send():
                connection.sendall(data)
            if number not in session._open or session._open[number].report is not None:
                return
            for event in session.receive(connection.recv(1000)):
                refused.append(getattr(event, "code", ""))


# --- inputs that are too much


@pytest.mark.parametrize("filler", [b"\x80", b"\x90", b"\xc0"], ids=["maps", "lists", "nothings"])
def test_a_call_that_unpacks_to_gigabytes(victim, watch, filler):
    size = 40 << 20
    with watch, connected(victim) as connection:
        session = Session(dialler=True)
        session.call("status", b"\xdd" + size.to_bytes(4, "big") + filler * size)
        while data := session.data_to_send():
            connection.sendall(data)
        (failed,) = session.receive(connection.recv(1 << 16))
        assert failed.code == "too-large"


BAD_JOBS = {
    "unknown model": ({"model": "nonsense"}, "unknown-model"),
    "a CID cut off": ({"model": "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5"}, "unknown-model"),
    "a CID nobody has": ({"model": "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"}, "unknown-model"),
    "a model's name of 10,000 letters": ({"model": "x" * 10_000}, "unknown-model"),
    "a task it cannot do": ({"task": "text-generation"}, "unsupported-task"),
    "an empty task": ({"task": ""}, "bad-input"),
    "params of another type": ({"work_ms": "long"}, "bad-input"),
    "an unknown node": ({"on": "nobody"}, "unknown-peer"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_told_with_a_code(victim, watch, case):
    asked, code = BAD_JOBS[case]
    asked = {"model": "echo-model", "task": "echo", **asked}
    with watch, victim.client() as client, pytest.raises(AccelError) as told:
        client.submit(asked.pop("model"), asked.pop("task"), ["x"], timeout=20, **asked).result(20)
    assert told.value.code == code
    assert told.value.message
    assert "\n" not in told.value.message


BAD_CALLS = [
    ("nonsense", {}, "unknown-method"),
    ("model.add", {}, "bad-input"),
    ("model.add", [], "bad-input"),
    ("model.add", {"path": 5}, "bad-input"),
    ("model.add", {"path": "/nowhere"}, "bad-input"),
    ("model.add", {"path": "/etc/hostname"}, "bad-input"),
    ("model.add", {"path": "x" * 5000}, "bad-input"),
    ("model.add", {"path": "a\0b"}, "bad-input"),
    ("model.add", {"path": "/", "cid_profile": "unixfs-v2"}, "bad-input"),
    ("model.add", {"path": "/", "cid_profile": ["unixfs-v1-2025"]}, "bad-input"),
    ("model.info", {"model": ["x"]}, "bad-input"),
    ("model.info", None, "bad-input"),
    ("model.get", {"model": "Qm"}, "unknown-model"),
    ("model.rm", {"model": ""}, "bad-input"),
]


@pytest.mark.parametrize(("method", "arguments", "code"), BAD_CALLS)
def test_a_bad_call_is_told_with_a_code(victim, watch, method, arguments, code):
    with watch, connected(victim) as connection:
        failed = answer_of(connection, Call(method, 0, values.pack(arguments)))
    assert (failed.code, failed.message != "", "\n" in failed.message) == (code, True, False)


def answer_of(connection, opening):
    """The one answer to a request, whatever it is."""
    connection.sendall(opening.to_frame(1))
    decoder = framing.Decoder()
    while not (frames := decoder.feed(connection.recv(1 << 16))):
        pass
    return inference.parse(frames[0])


def test_a_call_whose_arguments_are_no_value(victim, watch):
    with watch, connected(victim) as connection:
        assert answer_of(connection, Call("status", 0, b"\xc1")).code in ("protocol-error", "bad-input")


NO_MODELS = {
    "empty": ({}, "not-a-model"),
    "no config": ({"README.md": "hello"}, "not-a-model"),
    "config is no JSON": ({"config.json": "{"}, "not-a-model"),
    "no weights": ({"config.json": '{"model_type": "bert"}'}, "not-a-model"),
    "pickles": ({"config.json": '{"model_type": "bert"}', "pytorch_model.bin": "x"}, "unsafe-model"),
    "a type nobody serves": ({"config.json": '{"model_type": "evil"}'}, "unsupported-task"),
    "code of its own": ({"config.json": '{"model_type": "bert", "auto_map": {}}'}, "unsafe-model"),
}


@pytest.mark.parametrize("case", NO_MODELS)
def test_a_folder_that_is_no_model_is_refused_unless_it_is_wanted_anyway(victim, watch, tmp_path, case):
    files, code = NO_MODELS[case]
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with watch, victim.client() as client:
        if code != "unsupported-task":
            with pytest.raises(AccelError) as refused:
                client.add_model(tmp_path)
            assert refused.value.code == code
            assert "--anyway" in refused.value.hint
        if not files:
            return
        added = client.add_model(tmp_path, anyway=True)
        assert f"[{code}]" in added["why_not"]
        with pytest.raises(AccelError) as told:
            client.submit(added["cid"], "feature-extraction", ["x"], timeout=20).result(20)
        assert told.value.code == "unsupported-task"
        client.remove_model(added["cid"])


# --- running out of descriptors


def test_a_node_that_runs_out_of_descriptors_serves_on(tmp_path):
    """Connections beyond its bound of open files wait or are turned away, and it never stops listening."""
    from resource import RLIMIT_NOFILE, prlimit

    with NodeProcess("few", tmp_path / "few", "--backends", "none") as node:
        node.wait_ready()
        port = int(node.ready["addresses"][0].split("/")[4])
        prlimit(node.pid, RLIMIT_NOFILE, (64, 64))
        for open_one in (lambda: connected(node), lambda: socket.create_connection(("127.0.0.1", port), 5)):
            with ExitStack() as stack:
                for _ in range(100):
                    with suppress(OSError):
                        stack.enter_context(open_one())
                time.sleep(0.5)  # long enough to have run into the limit, were there no care
            with node.client() as client:
                node.wait_for("an answer", lambda: client.status(timeout=5)["state"] == "ready", 10)
        with NodeProcess("late", tmp_path / "late", "--backends", "none", "--join", node.ready["token"]) as late:
            late.wait_ready()
            with late.client() as client:
                late.wait_for("a link", lambda: client.status()["peers"] == 1, 20)
        assert json.dumps(node.ready)

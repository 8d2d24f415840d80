"""A node that is told to stop: it takes nothing new, finishes what runs, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster import NodeProcess, make_echo_model
from ipfs_accel_node.node.config import Paths
from ipfs_accel_node.node.content.lock import StoreLock
from ipfs_accel_node.protocols.errors import AccelError


class Held:
    """A job that waits in the worker until it is let go."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.params = {"hold": "compute", "hold_dir": str(folder)}

    def wait(self, node) -> None:
        node.wait_for("the job to run", (self.folder / "compute.held").exists, 20)

    def release(self) -> None:
        (self.folder / "compute.go").touch()


@pytest.fixture
def node(tmp_path):
    with NodeProcess("stopping", tmp_path / "data", "--backends", "echo") as process:
        process.wait_ready()
        with process.client() as client:
            client.add_model(make_echo_model(tmp_path / "model"), "mine")
        process.wait_for("its offer", lambda: has_offer(process), 20)
        yield process


def has_offer(node) -> bool:
    with node.client() as client:
        return any(model["nodes"] for model in client.models())


def state(node) -> str | None:
    with suppress(AccelError), node.client() as client:
        return client.status(timeout=5)["state"]
    return None


def ended(node, seconds: float) -> int:
    """The exit status, which must come within a bound."""
    return node._started().wait(seconds)


def check_nothing_left(node, family=()) -> None:
    """No process, no socket file, no lock that is held, nothing half written, and no trace of a mistake."""
    psutil.wait_procs(family, timeout=5)
    assert [process for process in family if process.is_running()] == []
    if node.ready:
        assert not Path(node.ready["socket"]).exists()
    assert list((node.data_dir / "content" / "adding").glob("*")) == []
    left = [path for path in node.data_dir.rglob("*") if path.suffix in (".tmp", ".new")]
    assert left == []
    assert "Traceback" not in node.log_tail()
    assert node._path("stderr").read_text() == ""
    with StoreLock(node.data_dir / "content"):
        pass


def family_of(node) -> list[psutil.Process]:
    return psutil.Process(node.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def test_what_runs_is_finished_and_nothing_new_begins(node, tmp_path, number):
    held = Held(tmp_path / "hold")
    large = "x" * (20 << 20)
    with node.client() as client:
        job = client.submit("mine", "echo", large, timeout=60, **held.params)
        held.wait(node)
        family = family_of(node)
        node.send_signal(number)
        node.wait_for("the news", lambda: state(node) == "draining", 10)
        with pytest.raises(AccelError) as refused:
            client.submit("mine", "echo", "y", timeout=20).result(20)
        assert refused.value.code == "draining"
        held.release()
        assert job.result(30)["echo"] == large
    assert ended(node, 10) == 0
    check_nothing_left(node, family)


def test_a_second_signal_stops_at_once(node, tmp_path):
    number = signal.SIGTERM
    held = Held(tmp_path / "hold")
    with node.client() as client:
        job = client.submit("mine", "echo", "x", timeout=60, **held.params)
        held.wait(node)
        family = family_of(node)
        node.send_signal(number)
        node.wait_for("the news", lambda: state(node) == "draining", 10)
        node.send_signal(number)
        assert ended(node, 8) == 0
        with pytest.raises(AccelError) as lost:
            job.result(10)
        assert lost.value.code in ("peer-lost", "not-running", "cancelled")
    check_nothing_left(node, family)


@pytest.mark.parametrize(
    ("after", "number"), [(0.0, signal.SIGTERM), (0.4, signal.SIGINT), (0.6, signal.SIGTERM), (0.8, signal.SIGINT)]
)
def test_a_signal_while_it_starts(tmp_path, number, after):
    """Whatever it is at: loading, listening, or with backends that are being tried."""
    with NodeProcess("early", tmp_path, "--backends", "echo,cpu") as early:
        process = psutil.Process(early.pid)
        end = time.monotonic() + 20
        while process.is_running() and sum(process.cpu_times()[:2]) < after and time.monotonic() < end:
            time.sleep(0.005)
        family = process.children(recursive=True)
        early.send_signal(number)
        status = ended(early, 15)
        if after == 0.0:
            assert status in (0, 1, 130, -number)  # the interpreter itself may not be there yet
        else:
            assert status in (0, 130, -number)
        assert "Traceback" not in early._path("stderr").read_text()
        assert psutil.wait_procs(family, timeout=5)[1] == []
        assert not Paths(tmp_path).socket.exists()


def test_a_signal_while_backends_are_tried(tmp_path):
    number = signal.SIGINT
    with NodeProcess("probing", tmp_path, "--backends", "echo,cpu,openvino") as probing:
        probing.wait_ready()
        family = family_of(probing)
        probing.send_signal(number)
        assert ended(probing, 15) == 0
        check_nothing_left(probing, family)


def test_a_signal_while_a_model_is_added(node, tmp_path):
    """A folder that takes long to copy: what was copied so far is not left behind."""
    number = signal.SIGINT
    large = tmp_path / "large"
    make_echo_model(large)
    with (large / "model.safetensors").open("wb") as file:
        file.truncate(6 << 30)
    with node.client() as client:
        begun = []
        adding = start_in_thread(lambda: client.add_model(large, on_progress=lambda *step: begun.append(step)))
        node.wait_for("the copying", lambda: bool(begun), 20)
        node.send_signal(number)
        assert ended(node, 10) == 0
        assert isinstance(adding(), AccelError)
    check_nothing_left(node)


def start_in_thread(function):
    """Runs it aside; the call that comes back waits for its outcome, which may be an error."""
    from concurrent.futures import ThreadPoolExecutor

    executor = ThreadPoolExecutor(1)
    future = executor.submit(function)

    def outcome():
        executor.shutdown()
        return future.exception() or future.result()

    return outcome


def test_a_signal_while_a_model_is_fetched(node, tmp_path):
    """It stops in the middle, and what came so far is there when the fetch is taken up again."""
    large = make_echo_model(tmp_path / "large")
    (large / "weights.bin").write_bytes(os.urandom(1 << 20) * 200)
    with node.client() as client:
        cid = client.add_model(large)["cid"]
    with NodeProcess(
        "fetching", tmp_path / "fetching", "--backends", "none", "--join", node.ready["token"]
    ) as fetching:
        fetching.wait_known(cid)
        begun = []
        with fetching.client() as client:
            getting = start_in_thread(lambda: client.get_model(cid, on_progress=lambda *step: begun.append(step)))
            fetching.wait_for("the first blocks", lambda: len(begun) > 2, 20)
            fetching.send_signal(signal.SIGTERM)
            assert ended(fetching, 10) == 0
            getting()
        check_nothing_left(fetching)
    with NodeProcess("again", tmp_path / "fetching", "--backends", "none") as again:
        again.wait_known(cid)
        with again.client() as client:
            assert client.get_model(cid)["cid"] == cid


def test_a_signal_while_a_client_uploads(node):
    """Half of its inputs are there: a client that sends no more does not keep the node."""
    number = signal.SIGTERM
    import socket

    from ipfs_accel_node.protocols.inference import Body, Request

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(node.ready["socket"])
        request = Request(os.urandom(16), 1, "mine", "echo", {}, {}, 3000, {}, 1 << 20, b"")
        client.sendall(request.to_frame(1) + Body(bytes(32_000)).to_frame(1))
        assert client.recv(100)
        node.send_signal(number)
        assert ended(node, 15) == 0
    check_nothing_left(node)


def test_a_draining_peer_says_so_and_its_jobs_run_elsewhere(node, tmp_path):
    held = Held(tmp_path / "hold")
    arguments = ("--join", node.ready["token"])
    with (
        NodeProcess("entry", tmp_path / "entry", "--backends", "none", *arguments) as entry,
        NodeProcess("spare", tmp_path / "spare", "--backends", "echo", *arguments) as spare,
    ):
        spare.wait_ready()
        with entry.client() as client, spare.client() as at_spare:
            cid = entry.wait_for("the model", lambda: [m["cid"] for m in client.models()], 20)[0]
            spare.wait_known(cid)
            at_spare.get_model(cid)
            entry.wait_for("both offers", lambda: len(client.models()[0]["nodes"]) == 2, 20)
            job = client.submit(cid, "echo", "first", timeout=60, on="stopping", **held.params)
            held.wait(node)
            node.send_signal(signal.SIGTERM)
            entry.wait_for(
                "the advert",
                lambda: any(p["name"] == "stopping" and p["state"] == "draining" for p in client.peers()),
                10,
            )
            for _ in range(5):
                entry.wait_for("the spare's offer", lambda: offered_by(client, "spare"), 20)
                after = client.submit(cid, "echo", "after", timeout=20)
                assert after.result(20)["echo"] == "after"
                assert after.report["node_name"] == "spare"
            held.release()
            assert job.result(20)["echo"] == "first"
            assert ended(node, 10) == 0


def offered_by(client, name):
    """Whether a node offers a model now; on a busy machine a link may be made anew."""
    return any(offer["node_name"] == name for model in client.models() for offer in model["nodes"])


@pytest.mark.soak
@pytest.mark.engines
def test_a_signal_while_a_model_is_converted(tmp_path):
    from ipfs_accel_node.backends.making import make_sentence_model

    model = make_sentence_model(tmp_path / "model")
    with NodeProcess("converting", tmp_path / "data", "--backends", "openvino") as node:
        node.wait_ready()
        with node.client() as client:
            client.add_model(model, "tiny")
        node.wait_for("the conversion", lambda: converters(node), 120)
        family = family_of(node)
        node.send_signal(signal.SIGTERM)
        assert ended(node, 15) == 0
        check_nothing_left(node, family)


def converters(node) -> list[psutil.Process]:
    return [process for process in family_of(node) if "backends.convert" in " ".join(process.cmdline())]


@pytest.mark.soak
def test_draining_has_an_end(node, tmp_path):
    """A job that does not finish is given up after 20 s."""
    held = Held(tmp_path / "hold")
    with node.client() as client:
        client.submit("mine", "echo", "x", timeout=60, **held.params)
        held.wait(node)
        family = family_of(node)
        began = time.monotonic()
        node.send_signal(signal.SIGTERM)
        assert ended(node, 28) == 0
        assert time.monotonic() - began > 15
    check_nothing_left(node, family)

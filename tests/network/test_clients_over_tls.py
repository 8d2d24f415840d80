"""Clients on other machines, over TLS, at a real node: who is let in, what they may do, and who keeps nobody out."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import numpy as np
import pytest
from cluster import PROGRAM, NodeProcess, environment, make_echo_model
from ipfs_accel_node import AccelError, AsyncClient, Client, JobError
from ipfs_accel_node.node.config import Paths
from ipfs_accel_node.protocols.client_door import ClientToken
from ipfs_accel_node.protocols.framing import Decoder, encode

#: Longer than a node gives a client to be let in.
OPENING_S = 15.0


@contextmanager
def started(folder, *arguments):
    with NodeProcess("node", folder / "data", "--backends", "echo", *arguments) as process:
        process.wait_ready()
        with process.client() as client:
            client.add_model(make_echo_model(folder / "model"), "echo")
        yield process


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with started(tmp_path_factory.mktemp("node"), "--listen-clients", "127.0.0.1:0", "--log-json") as process:
        yield process


@pytest.fixture
def there(node):
    """Address and token, as the node told them when it started."""
    return node.ready["clients"]["addresses"][0], node.ready["clients"]["token"]


@pytest.fixture
def client(there):
    with Client(there[0], token=there[1]) as client:
        yield client


@pytest.fixture
def plain(there):
    """Opens TCP connections to the node's door that say what a test lets them say."""
    with ExitStack() as stack:
        host, _, port = there[0].rpartition(":")
        yield lambda: stack.enter_context(socket.create_connection((host, int(port)), OPENING_S))


@pytest.fixture
def inside(plain):
    """The same inside TLS, where the opening would come next."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        yield lambda: stack.enter_context(context.wrap_socket(plain()))


@pytest.fixture(params=["asyncio", "trio"])
def run(request):
    def run(main):
        async def bounded():
            with anyio.fail_after(60):
                await main()

        anyio.run(bounded, backend=request.param)

    return run


def hung_up(connection) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_jobs_and_questions(client):
    job = client.submit("echo", "echo", {"text": "häl lo", "array": np.arange(6, dtype=np.float32).reshape(2, 3)})
    out = job.result(20)["echo"]
    assert out["text"] == "häl lo"
    assert np.array_equal(out["array"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert client.status()["state"] == "ready"
    assert [model["name"] for model in client.models()] == ["echo"]
    assert client.peers() == []
    assert client.get_model("echo")["already"] is True
    assert client.config()["listen_clients"] == "127.0.0.1:0"


def test_large_things_from_many_threads_at_once(client):
    got = {}

    def ask(number):
        array = np.random.default_rng(number).random(200_000)
        got[number] = np.array_equal(client.submit("echo", "echo", array).result(60)["echo"], array)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == dict.fromkeys(range(12), True)


def test_a_client_that_hangs_up_cancels_its_jobs(there, client, node):
    leaving = Client(there[0], token=there[1])
    job = leaving.submit("echo", "echo", "x", work_ms=30_000)
    node.wait_for("the job to run", lambda: client.status()["jobs"]["running"] == 1 or None, 10)
    leaving.close()
    with pytest.raises(JobError, match="peer-lost"):
        job.result(5)
    node.wait_for("the job to end", lambda: client.status()["jobs"]["running"] == 0 or None, 10)


def test_the_asynchronous_client(run, there):
    got = {}

    async def main():
        async with AsyncClient(there[0], token=there[1]) as client, anyio.create_task_group() as tasks:

            async def ask(number):
                completed = await client.run("echo", "echo", np.full(100_000, number))
                got[number] = set(completed.value["echo"].tolist())

            assert (await client.status())["state"] == "ready"
            for number in range(10):
                tasks.start_soon(ask, number)

    run(main)
    assert got == {number: {number} for number in range(10)}


def changed(token, **fields) -> str:
    kept = vars(ClientToken.decode(token))
    return ClientToken(**{**kept, **fields}).encode()


@pytest.mark.parametrize(
    ("wrong", "code"),
    [({"secret": bytes(32)}, "wrong-client-token"), ({"fingerprint": bytes(32)}, "wrong-certificate")],
)
def test_who_is_not_let_in_is_told_why(run, there, wrong, code):
    token = changed(there[1], **wrong)
    with pytest.raises(AccelError) as refused:
        Client(there[0], token=token)
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)

    async def main():
        with pytest.raises(AccelError) as refused:
            async with AsyncClient(there[0], token=token):
                pass
        assert refused.value.code == code

    run(main)


def test_where_no_node_takes_clients(run, there, node):
    libp2p = node.ready["addresses"][0].split("/")[4]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        for address, said in (
            (f"127.0.0.1:{port}", "Connection refused"), (f"localhost:{port}", "Connection refused"),
            ("nowhere.invalid:1", "no node answers at nowhere.invalid:1"), ("." * 9 + ":1", "no node answers at"),
            (f"127.0.0.1:{libp2p}", "no node's door for clients"),
        ):  # fmt: skip

            async def main(address=address, said=said):
                with pytest.raises(AccelError, match=said) as refused:
                    async with AsyncClient(address, token=there[1]):
                        pass
                assert (refused.value.code, str(refused.value).count("\n")) == ("not-running", 0)

            run(main)
            with pytest.raises(AccelError, match=said) as refused:
                Client(address, token=there[1])
            assert (refused.value.code, str(refused.value).count("\n")) == ("not-running", 0)


def test_an_address_and_a_token_go_together(there, tmp_path):
    for arguments, options in (((there[0],), {}), ((), {"token": there[1]}), ((tmp_path,), {"token": there[1]})):
        for kind in (Client, AsyncClient):
            with pytest.raises(AccelError, match="client token") as refused:
                kind(*arguments, **options)
            assert refused.value.code == "bad-input"
    with pytest.raises(AccelError, match="bad-token"):
        Client(there[0], token="ianc1nonsense")


def test_what_means_the_nodes_own_machine_is_refused(client, tmp_path):
    with pytest.raises(AccelError, match="the node's own machine") as refused:
        client.add_model(make_echo_model(tmp_path / "model"))
    assert (refused.value.code, "model add" in refused.value.hint) == ("permission-denied", True)
    with pytest.raises(AccelError, match="the node's own machine") as refused:
        client.client_token(new=True)
    assert refused.value.code == "permission-denied"


def test_no_secret_is_told(client, node, there):
    answers = json.dumps([client.status(), client.config(), client.peers(), client.models(), client.model_info("echo")])
    assert "ian1" not in answers
    assert "ianc1" not in answers
    with node.client() as here:
        assert here.status()["token"].startswith("ian1")
        assert here.client_token()["token"] == there[1]
    for file in (Paths(node.data_dir).client_secret, Paths(node.data_dir).client_certificate):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_older_than_tls_1_3_and_nothing_without(there, plain):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with plain() as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection)
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 5000, bytes(range(256)) * 100):
        with plain() as connection:
            connection.sendall(garbage)
            while not hung_up(connection):
                pass


def test_inside_tls_what_is_no_opening_is_answered_and_dropped(inside):
    for wrong in (b"\0\1\0\1", b"GET / HTTP/1.1\r\n\r\n", encode(12, 0, 1), encode(80, 0, 1, 1, b"short")):
        with inside() as connection:
            connection.sendall(wrong)
            (answer,) = Decoder().feed(connection.recv(4096))
            assert answer.type == 82
            assert answer.fields[0] in ("protocol-error", "wrong-client-token")
            assert hung_up(connection)


def test_who_says_nothing_or_too_little_is_dropped_in_time(plain, inside):
    """A byte now and then helps nobody: the time runs from the connection."""
    connections = {"silent": plain(), "slow": plain(), "silent inside": inside(), "slow inside": inside()}
    end = time.monotonic() + OPENING_S
    left = set(connections)
    while left:
        assert time.monotonic() < end, left
        for name in sorted(left):
            connections[name].settimeout(0.1)
            try:
                if name.startswith("slow"):
                    connections[name].sendall(b"\0" if "inside" in name else b"\x16")
                if hung_up(connections[name]):
                    left.remove(name)
            except TimeoutError:
                continue
            except OSError:
                left.remove(name)


def test_three_hundred_that_do_nothing_keep_nobody_out(plain, there, node):
    silent = [plain() for _ in range(300)]
    with Client(there[0], token=there[1]) as client:
        assert client.submit("echo", "echo", "x").result(20)["echo"] == "x"
        assert open_descriptors(node) < 250
        assert all(hung_up(connection) for connection in silent)
        assert client.status()["state"] == "ready"
    logged = [json.loads(line) for line in (node.data_dir / "node.log").read_text().splitlines()]
    told = [line["message"] for line in logged if "not let in" in line["message"]]
    assert any("more clients were not let in" in message for message in told)
    assert len(told) < 100


def open_descriptors(node) -> int:
    return sum(1 for _ in Path(f"/proc/{node.pid}/fd").iterdir())


def test_more_clients_at_once_than_the_node_takes(run, there, node):
    told = []

    async def main():
        done = anyio.Event()

        async def enter():
            try:
                async with AsyncClient(there[0], token=there[1]):
                    told.append("let in")
                    await done.wait()
            except AccelError as error:
                told.append(error.code)

        async with anyio.create_task_group() as tasks:
            for _ in range(80):
                tasks.start_soon(enter)
            while len(told) < 80:
                await anyio.sleep(0.01)
            done.set()

    node.wait_for("room", lambda: let_in(there) or None, 10)
    run(main)
    assert (told.count("let in"), told.count("busy")) == (64, 16)
    node.wait_for("room", lambda: let_in(there) or None, 10)


def let_in(there) -> bool:
    try:
        Client(there[0], token=there[1]).close()
    except AccelError as error:
        assert error.code == "busy"
        return False
    return True


def test_a_new_token_ends_the_old_one(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.toml").write_text('listen_clients = "127.0.0.1:0"\n')
    with started(tmp_path) as node:
        address, old = node.ready["clients"]["addresses"][0], node.ready["clients"]["token"]
        connected = Client(address, token=old)
        job = connected.submit("echo", "echo", "x", work_ms=30_000)
        told = command("client-token", "--new", "--json", "--data-dir", str(node.data_dir))
        assert (told["addresses"], told["token"] == old) == ([address], False)
        with pytest.raises(JobError, match="peer-lost"):
            job.result(10)
        with pytest.raises(AccelError, match="wrong-client-token"):
            connected.status()
        connected.close()
        with Client(address, token=told["token"]) as client:
            assert client.status()["state"] == "ready"
        assert node.stop() == 0
    new = command("client-token", "--new", "--json", "--data-dir", str(node.data_dir))
    assert new["addresses"] == []
    assert new["token"] != told["token"]
    assert new["fingerprint"] == told["fingerprint"]
    assert command("client-token", "--json", "--data-dir", str(node.data_dir)) == new


def test_a_client_finds_its_node_again(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with started(tmp_path, "--listen-clients", f"127.0.0.1:{port}") as node:
        token = node.ready["clients"]["token"]
        client = Client(f"127.0.0.1:{port}", token=token)
        node.kill()
        with pytest.raises(AccelError):
            client.status(timeout=10)
    with NodeProcess("node", tmp_path / "data", "--backends", "echo", "--listen-clients", f"127.0.0.1:{port}") as again:
        assert again.wait_ready()["clients"]["token"] == token
        assert client.submit("echo", "echo", "again").result(20)["echo"] == "again"
        client.close()


def test_a_port_in_use_is_told(there, tmp_path):
    arguments = ["start", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--listen-clients", there[0]]
    done = program(*arguments, "--backends", "none", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen for clients on {there[0]}" in done.stderr
    assert "[port-in-use]" in done.stderr


def program(*arguments, **variables) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=60,
        env={**environment(), "COLUMNS": "200", **variables},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def command(*arguments):
    done = program(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

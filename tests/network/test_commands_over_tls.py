"""The commands of a laptop without a node, at a real node over TLS."""

from __future__ import annotations

import json
import subprocess

import pytest
from cluster import PROGRAM, NodeProcess, environment, make_echo_model
from ipfs_accel_node.protocols.client_door import ClientToken


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with NodeProcess("node", folder / "data", "--backends", "echo", "--listen-clients", "127.0.0.1:0") as process:
        with process.client() as client:
            client.add_model(make_echo_model(folder / "model"), "echo")
        yield process


@pytest.fixture
def there(node):
    """Address and token."""
    return node.ready["clients"]["addresses"][0], node.ready["clients"]["token"]


@pytest.fixture
def elsewhere(there, tmp_path):
    """Runs a command against the node over TLS, from a machine without one: its finished process."""
    (tmp_path / "token").write_text(there[1] + "\n")

    def run(*arguments):
        return program("--node", there[0], "--token-file", str(tmp_path / "token"), *arguments)

    return run


def program(*arguments, **variables) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=60,
        env={**environment(), "COLUMNS": "200", **variables},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["status"], "ready"), (["peers"], "No peers yet"), (["model", "ls"], "echo"), (["model", "info", "echo"], "bafy"),
     (["model", "get", "echo"], "already"), (["run", "echo", "--task", "echo", "--input", "hello"], "hello")],
)  # fmt: skip
def test_commands_from_a_laptop(elsewhere, arguments, shown):
    done = elsewhere(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert elsewhere(*arguments, "--json").returncode == 0


def test_the_node_asked_is_not_called_here(elsewhere):
    done = elsewhere("run", "echo", "--input", "a", "--explain")
    assert "(the node asked)" in done.stdout
    assert "(here)" not in done.stdout


def test_removing_a_model_from_a_laptop(elsewhere, node, tmp_path):
    with node.client() as client:
        client.add_model(make_echo_model(tmp_path / "model", other=1), "other")
    assert elsewhere("model", "rm", "other").returncode == 0
    assert elsewhere("model", "info", "other").returncode == 2


def test_the_environment_says_where_and_with_what(there):
    variables = {"IPFS_ACCEL_NODE": there[0], "IPFS_ACCEL_CLIENT_TOKEN": there[1]}
    assert json.loads(program("status", "--json", **variables).stdout)["node_name"] == "node"
    variables["IPFS_ACCEL_CLIENT_TOKEN"] = ClientToken(bytes(32), ClientToken.decode(there[1]).fingerprint).encode()
    assert "[wrong-client-token]" in program("peers", **variables).stderr

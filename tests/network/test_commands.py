"""The commands as a user runs them: with a node, without one, and wrongly."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess

import pytest
from cluster import PROGRAM, NodeProcess, environment, run_json
from cluster import run_program as run
from ipfs_accel_node import Client
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.profiles import PROFILES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "echo"}')
    return folder


@pytest.fixture(scope="module")
def node(tmp_path_factory, model):
    with NodeProcess("desk", tmp_path_factory.mktemp("node"), "--backends", "echo") as process:
        process.wait_ready()
        with process.client() as client:
            client.add_model(model, "mine")
        yield process


def test_a_model_is_added_listed_and_removed_without_a_node(tmp_path, model):
    added = run_json("model", "add", model, "--name", "mine", data_dir=tmp_path)
    assert added["cid"].startswith("bafybei")
    assert (added["name"], added["files"]) == ("mine", 1)
    assert [each["cid"] for each in run_json("model", "ls", data_dir=tmp_path)] == [added["cid"]]
    assert run_json("model", "info", "mine", data_dir=tmp_path)["files"][0]["path"] == "config.json"
    assert "mine" in run("model", "ls", data_dir=tmp_path).stdout
    assert run_json("model", "rm", "mine", data_dir=tmp_path)["cid"] == added["cid"]
    assert run_json("model", "ls", data_dir=tmp_path) == []


def test_the_same_with_a_node(node, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "echo", "note": "another"}')
    added = run_json("model", "add", tmp_path, "--name", "other", data_dir=node.data_dir)
    names = {each["name"]: each["cid"] for each in run_json("model", "ls", data_dir=node.data_dir)}
    assert names["other"] == added["cid"]
    assert run_json("model", "get", "other", data_dir=node.data_dir)["already"] is True
    assert run("model", "rm", "other", data_dir=node.data_dir).returncode == 0


def test_the_cid_is_told_before_and_is_that_of_the_profile(tmp_path, model):
    told = {name: run_json("model", "cid", model, "--cid-profile", name, data_dir=tmp_path) for name in PROFILES}
    assert {name: each["cid"] for name, each in told.items()} == {
        name: format_cid(import_folder(model, profile).root) for name, profile in PROFILES.items()
    }
    assert told["unixfs-v0-2015"]["cid"].startswith("Qm")
    assert told["kubo-cid-v1"] | {"cid": ""} == {"cid": "", "cid_profile": "kubo-cid-v1", "size": 22, "files": 1}
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "config.toml").write_text('cid_profile = "unixfs-v0-2015"')
    assert told["unixfs-v0-2015"] == run_json("model", "cid", model, data_dir=tmp_path)
    added = run_json("model", "add", model, data_dir=tmp_path)
    assert (added["cid"], added["cid_profile"]) == (told["unixfs-v0-2015"]["cid"], "unixfs-v0-2015")
    again = run_json("model", "add", model, "--cid-profile", "unixfs-v1-2025", data_dir=tmp_path)
    assert again["cid"] == told["unixfs-v1-2025"]["cid"]
    assert len(run_json("model", "ls", data_dir=tmp_path)) == 2


def test_a_snapshot_of_the_hugging_face_cache_is_added_as_it_lies(tmp_path, model):
    """Every file of it is a link out of it, which would be refused anywhere else."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c0ffee", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(model, blobs)
    (snapshot / "config.json").symlink_to("../../blobs/config.json")
    added = run_json("model", "add", snapshot, "--name", "hf", data_dir=tmp_path / "data")
    assert added["cid"] == format_cid(import_folder(model).root)
    assert run_json("model", "info", "hf", data_dir=tmp_path / "data")["why_not"] == ""
    shutil.rmtree(tmp_path / "models--a--b")
    assert run("repo", "verify", data_dir=tmp_path / "data").returncode == 0
    outside = model / "snapshots" / "config.json"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(outside)
    assert "[unsafe-model]" in run("model", "add", snapshot, data_dir=tmp_path / "data").stderr


def test_a_node_adds_under_the_profile_that_is_asked_for(node, model):
    with node.client() as client:
        added = client.add_model(model, "old", cid_profile="unixfs-v0-2015")
        asked = ("model", "cid", model, "--cid-profile", "unixfs-v0-2015")
        assert added["cid"] == run_json(*asked, data_dir=node.data_dir)["cid"]
        assert client.add_model(model, "mine")["cid_profile"] == "unixfs-v1-2025"
        assert client.remove_model("old")["cid"] == added["cid"]


@pytest.mark.parametrize("command", [("model", "add"), ("model", "cid")])
def test_a_profile_that_there_is_not_is_told_with_those_there_are(tmp_path, model, command):
    refused = run(*command, model, "--cid-profile", "unixfs-v2", data_dir=tmp_path)
    assert refused.returncode == 2
    assert "'unixfs-v2' is no CID profile [bad-input]" in refused.stderr
    assert all(name in refused.stderr for name in PROFILES)
    (tmp_path / "config.toml").write_text('cid_profile = "unixfs-v2"')
    assert "config.toml, line 1: it is one of unixfs-v1-2025" in run(*command, model, data_dir=tmp_path).stderr


@pytest.mark.parametrize("with_node", [True, False])
def test_a_folder_that_cannot_be_run_is_refused_or_added_anyway_with_the_reason(node, tmp_path, with_node):
    folder, data_dir = tmp_path / "notes", node.data_dir if with_node else tmp_path / "data"
    folder.mkdir()
    (folder / "notes.txt").write_text(f"no model {with_node}")
    refused = run("model", "add", folder, "--name", "notes", data_dir=data_dir)
    assert refused.returncode == 1
    assert "[not-a-model]" in refused.stderr
    assert "--anyway" in refused.stderr
    added = run("model", "add", folder, "--name", "notes", "--anyway", data_dir=data_dir)
    assert added.returncode == 0
    assert "it has no config.json [not-a-model]" in added.stderr
    assert "it has no config.json [not-a-model]" in run("model", "info", "notes", data_dir=data_dir).stdout
    if with_node:
        asked = run("run", "notes", "--input", "a", data_dir=data_dir)
        assert "it has no config.json [not-a-model]" in asked.stderr
    assert run("model", "rm", "notes", data_dir=data_dir).returncode == 0


@pytest.mark.parametrize("with_node", [True, False])
def test_a_name_that_is_taken_is_told(node, model, tmp_path, with_node):
    another, data_dir = tmp_path / "another", node.data_dir if with_node else tmp_path / "data"
    another.mkdir()
    (another / "config.json").write_text(f'{{"model_type": "echo", "note": "a namesake {with_node}"}}')
    first = run_json("model", "add", model, "--name", "mine", data_dir=data_dir)["cid"]
    second = run("model", "add", another, "--name", "mine", data_dir=data_dir)
    assert f"'mine' is the name of {first} too" in second.stderr
    assert run("model", "rm", second.stdout.split()[0], data_dir=data_dir).returncode == 0


def test_what_a_model_is_for_is_told_without_a_node(tmp_path, model):
    run_json("model", "add", model, "--name", "mine", data_dir=tmp_path)
    assert run_json("model", "info", "mine", data_dir=tmp_path)["task"] == "echo"


def test_a_job_from_the_command_line(node):
    out = run_json("run", "mine", "--input", "a", "--input", "b", "--explain", data_dir=node.data_dir)
    assert out["value"]["echo"] == ["a", "b"]
    assert out["report"]["node_name"] == "desk"
    lines = run("run", "mine", "--input", "-", "--json", data_dir=node.data_dir, stdin="one\ntwo\n")
    assert json.loads(lines.stdout)["value"]["echo"] == ["one", "two"]
    shown = run("run", "mine", "--input", "a", "--explain", data_dir=node.data_dir).stdout
    assert "predicted" in shown
    assert "desk (here)" in shown


def test_what_people_look_at(node):
    assert "echo" in run("status", data_dir=node.data_dir).stdout
    assert "No peers yet" in run("peers", data_dir=node.data_dir).stdout
    assert run("token", data_dir=node.data_dir).stdout.startswith("ipfs-accel-node start --join ian1")
    assert run_json("status", data_dir=node.data_dir)["state"] == "ready"
    assert run_json("peers", data_dir=node.data_dir) == []
    checks = {check["name"]: check for check in run_json("doctor", data_dir=node.data_dir)["checks"]}
    assert checks["node"]["ok"]
    assert checks["libp2p"]["ok"]
    assert checks["backend cpu"]["detail"].startswith("computes on")


MISTAKES = [
    (["model", "add", "/nowhere"], "bad-input", 2),
    (["model", "info", "nonsense"], "unknown-model", 2),
    (["model", "rm", "nonsense"], "unknown-model", 2),
    (["run", "nonsense", "--input", "x"], "unknown-model", 2),
    (["run", "mine"], "bad-input", 2),
    (["run", "mine", "--input", "x", "--task", "text-generation"], "unsupported-task", 1),
    (["run", "mine", "--input", "x", "--on", "nobody"], "unknown-peer", 2),
    (["model", "get", "bafybeib7uczfzs7y5cnbsy7uz6tkcxs5nk5zkmjvdk4yyn5qrk2rvapqfq"], "content-not-found", 1),
]


@pytest.mark.parametrize(("arguments", "code", "status"), MISTAKES, ids=str)
def test_a_mistake_is_one_line_with_a_code(node, arguments, code, status):
    done = run(*arguments, data_dir=node.data_dir)
    assert done.returncode == status
    assert f"[{code}]" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    told = run(*arguments, "--json", data_dir=node.data_dir)
    assert json.loads(told.stdout)["error"]["code"] == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["peers"],
        ["token"],
        ["run", "m", "--input", "x"],
        ["model", "get", "m"],
        ["top"],
        ["pause"],
        ["resume"],
    ],
)
def test_without_a_node_it_says_how_to_start_one(tmp_path, arguments):
    done = run(*arguments, data_dir=tmp_path)
    assert done.returncode == 1
    assert "[not-running] Start one: ipfs-accel-node start" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["start", "--threads", "none"], ["start", "--join", "nonsense"], ["start", "--listen", "here"],
                  ["start", "--backends", "abacus"], ["start", "--memory", "much"]]
)  # fmt: skip
def test_a_node_that_cannot_start_says_why(tmp_path, arguments):
    done = run(*arguments, data_dir=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "command", [[], ["start"], ["status"], ["peers"], ["token"], ["model"], ["model", "add"], ["model", "ls"],
                ["model", "info"], ["model", "get"], ["model", "rm"], ["run"], ["doctor"], ["top"], ["pause"],
                ["resume"], ["pin"], ["pin", "add"], ["pin", "ls"], ["pin", "rm"], ["completion"]]
)  # fmt: skip
def test_every_help_has_an_example(command):
    done = subprocess.run([PROGRAM, *command, "--help"], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert "example:\n  ipfs-accel-node" in done.stdout


def test_usage_errors(tmp_path):
    for arguments in (["nonsense"], ["run"], ["model", "add"], ["run", "m", "--timeout", "x"]):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=20)
        assert done.returncode == 2
        assert "--help" in done.stderr


@pytest.mark.parametrize(("typed", "meant"), [(["stauts"], "status"), (["model", "lst"], "ls"), (["pin", "ad"], "add")])
def test_a_slip_in_a_command_is_told_what_was_meant(tmp_path, typed, meant):
    assert f"Did you mean {meant!r}? Try:" in run(*typed, data_dir=tmp_path).stderr


def test_a_node_that_is_stopped_says_what_it_waits_for(tmp_path, model):
    data_dir = tmp_path / "data"
    run_json("model", "add", model, "--name", "mine", data_dir=data_dir)
    fixed = ["--backends", "echo", "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--data-dir", str(data_dir)]
    with subprocess.Popen([PROGRAM, "start", *fixed], stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            said = iter(process.stdout.readline, "")
            assert any("Ctrl-C stops the node" in line for line in said)
            with Client(data_dir) as client:
                job = client.submit("mine", "echo", ["a"], work_ms=2000, timeout=60)
                while not client.status()["jobs"]["running"]:
                    assert not job.done()
                process.send_signal(signal.SIGINT)
                assert any("stopping, 1 job left to finish" in line for line in said)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()

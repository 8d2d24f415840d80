"""`config show` and `config path`, and how commands find a node on another machine."""

from __future__ import annotations

import json
import re

import pytest
from ipfs_accel_node.node import cli
from ipfs_accel_node.protocols.client_door import ClientToken

TOKEN = ClientToken(bytes(32), bytes(32)).encode()


@pytest.fixture(autouse=True)
def plainly(monkeypatch, clean_environment):
    monkeypatch.setenv("COLUMNS", "220")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = cli.main([*map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('# mine\nthreads = 1\nprecision = "bf16"\njoin = "ian1secret"\n')
    monkeypatch.setenv("IPFS_ACCEL_NAME", "environment")
    return tmp_path


def test_each_setting_is_shown_with_its_source(run, folder):
    status, out, err = run("config", "show", "--json", "--data-dir", folder, "--threads", "3", "--log-json")
    shown = {each["setting"]: (each["value"], each["origin"], each["source"]) for each in json.loads(out)}
    assert (status, err) == (0, "")
    assert shown["data_dir"] == (str(folder), "flag", "--data-dir")
    assert shown["threads"] == (3, "flag", "--threads")
    assert shown["log_json"] == (True, "flag", "--log-json")
    assert shown["name"] == ("environment", "variable", "IPFS_ACCEL_NAME")
    assert shown["precision"] == ("bf16", "file", f"precision in {folder / 'config.toml'}, line 3")
    assert shown["listen"] == (["/ip4/0.0.0.0/tcp/4011"], "default", "")
    assert shown["listen_clients"] == (None, "default", "")
    assert shown["join"][1] == "file"
    assert "ian1secret" not in out


def test_a_person_reads_the_same(run, folder):
    for command in (["config"], ["config", "show"]):
        status, out, err = run(*command, "--data-dir", folder)
        assert (status, err) == (0, "")
        assert re.search(r"threads +1 +threads in .*config\.toml, line 2", out)
        assert re.search(r"name +environment +IPFS_ACCEL_NAME", out)
        assert re.search(r"listen_clients +not set +default", out)
        assert re.search(r"backends +auto +default", out)
        assert "ian1secret" not in out


def test_where_the_file_stands(run, tmp_path, monkeypatch):
    assert run("config", "path", "--data-dir", tmp_path)[1] == f"{tmp_path / 'config.toml'}\n"
    monkeypatch.setenv("IPFS_ACCEL_DATA_DIR", str(tmp_path))
    told = json.loads(run("config", "path", "--json")[1])
    assert told == {"path": str(tmp_path / "config.toml"), "exists": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [("thread = 4", "line 1 [bad-config] Did you mean 'threads'?"),
     ("threads = 0", "line 1: threads are a whole number"),
     ("threads = = 4", "line 1, column 11: Invalid value [bad-config]")],
)  # fmt: skip
def test_a_mistake_is_shown_in_place(run, tmp_path, text, said):
    (tmp_path / "config.toml").write_text(text)
    status, out, err = run("config", "show", "--data-dir", tmp_path)
    assert (status, out) == (2, "")
    assert said in err


WRONG = [
    (["--node", "desk:1", "status"], "there is no client token for desk:1"),
    (["--node", "desk", "--token-file", "TOKEN", "status"], "HOST:PORT"),
    (["--node", "desk:1", "--data-dir", "/x", "status"], "--data-dir one of this machine"),
    (["--token-file", "TOKEN", "status"], "--token-file is for a node elsewhere"),
    (["--node", "desk:1", "--token-file", "/nowhere", "peers"], "/nowhere: No such file"),
    (["--node", "desk:1", "--token-file", TOKEN, "peers"], "not the token"),
    (["--node", "desk:1", "--token-file", "GARBAGE", "model", "ls"], "[bad-token]"),
    (["--node", "desk:1", "--token-file", "BINARY", "model", "ls"], "[bad-token]"),
    (["--node", "desk:1", "start"], "for the node of this machine"),
    (["--node", "desk:1", "token"], "for the node of this machine"),
    (["--node", "desk:1", "model", "add", "/tmp"], "for the node of this machine"),
    (["model", "--node", "desk:1", "add", "/tmp"], "for the node of this machine"),
    (["--token-file", "TOKEN", "doctor"], "for the node of this machine"),
]


@pytest.mark.parametrize(
    ("command", "said"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_node_elsewhere_needs_address_and_token(run, tmp_path, command, said):
    for name, content in (("TOKEN", TOKEN.encode()), ("GARBAGE", b"ianc1x"), ("BINARY", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
    given = [str(tmp_path / each) if each in ("TOKEN", "GARBAGE", "BINARY") else each for each in command]
    status, out, err = run(*given)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", err)
    assert said in err
    assert TOKEN not in err


def test_a_data_folder_goes_before_the_variable_that_names_a_node_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.setenv("IPFS_ACCEL_NODE", "127.0.0.1:1")
    monkeypatch.setenv("IPFS_ACCEL_CLIENT_TOKEN", TOKEN)
    assert "no node answers at 127.0.0.1:1" in run("status")[2]
    assert ".sock" in run("status", "--data-dir", tmp_path)[2]
    assert "no node answers at 127.0.0.1:1" in run("model", "ls")[2]
    assert run("model", "ls", "--data-dir", tmp_path, "--json")[:2] == (0, "[]\n")


def test_the_token_of_a_data_folder_without_a_node(run, tmp_path):
    first = json.loads(run("client-token", "--json", "--data-dir", tmp_path)[1])
    status, out, err = run("client-token", "--data-dir", tmp_path)
    assert (status, out) == (0, first["token"] + "\n")
    assert "--listen-clients" in err
    new = json.loads(run("client-token", "--new", "--json", "--data-dir", tmp_path)[1])
    assert ClientToken.decode(new["token"]).secret != ClientToken.decode(first["token"]).secret
    assert new["fingerprint"] == first["fingerprint"]

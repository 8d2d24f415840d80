"""The configuration: where each value comes from, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node import config, setting_values
from ipfs_accel_node.node.tcp import HostPort
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(config.os.environ):
        if name.startswith(config.ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)


def test_flags_over_environment_over_file_over_default(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('threads = 1\nname = "file"\nprecision = "bf16"\n')
    monkeypatch.setenv("IPFS_ACCEL_THREADS", "2")
    monkeypatch.setenv("IPFS_ACCEL_NAME", "environment")
    loaded = config.load({"threads": "3", "node_name": None}, tmp_path)
    assert (loaded.threads, loaded.node_name, loaded.precision) == (3, "environment", "bf16")
    assert loaded.listen == ("/ip4/0.0.0.0/tcp/4011",)
    assert loaded.mdns is True
    assert loaded.backends is None


def test_the_data_folder_has_a_variable_too(tmp_path, monkeypatch):
    monkeypatch.setenv("IPFS_ACCEL_DATA_DIR", str(tmp_path))
    assert config.load({}).data_dir == tmp_path


#: What a person types for a setting, where that is not its name.
FLAGS = {"memory_bytes": "--memory", "node_name": "--name", "peers": "--peer", "mdns": "--no-mdns"}


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [("threads", "many", "--threads: threads are a whole number"), ("join", " ", "empty"),
     ("threads", "0", "from 1"), ("memory_bytes", "lots", "8G"),
     ("backends", "abacus", "openvino"), ("precision", "f64", "f32"), ("node_name", "a b", "letters"),
     ("listen_clients", "4012", "HOST:PORT"), ("peers", ["1.2.3.4"], "/p2p/"),
     ("mdns", "perhaps", "true or false"), ("log_level", "loud", "debug")],
)  # fmt: skip
def test_a_bad_value_is_told_with_its_source(tmp_path, flag, value, said):
    with pytest.raises(AccelError) as refused:
        config.load({flag: value}, tmp_path)
    assert refused.value.code == "bad-config"
    assert said in refused.value.message
    assert refused.value.message.startswith(FLAGS.get(flag, f"--{flag.replace('_', '-')}"))


def test_a_bad_file_is_told_with_its_line(tmp_path):
    (tmp_path / "config.toml").write_text("# comment\nthread = 4\n")
    with pytest.raises(AccelError, match="line 2") as refused:
        config.load({}, tmp_path)
    assert "'threads'" in refused.value.hint
    (tmp_path / "config.toml").write_text("threads = = 4\n")
    with pytest.raises(AccelError, match="line 1"):
        config.load({}, tmp_path)


@pytest.mark.parametrize(
    ("text", "size"), [("8G", 8 << 30), ("512M", 512 << 20), ("1.5GiB", 3 << 29), ("100", 100), ("2 kb", 2048)]
)
def test_sizes(text, size):
    assert setting_values.size(text) == size


@given(st.text(max_size=10))
def test_any_text_is_a_size_or_a_value_error(text):
    try:
        assert setting_values.size(text) > 0
    except ValueError as error:
        assert str(error)


def test_backends(tmp_path):
    assert config.load({"backends": "none"}, tmp_path).backends == ()
    assert config.load({"backends": "cpu, openvino,cpu"}, tmp_path).backends == ("cpu", "openvino")
    assert config.load({"backends": "auto"}, tmp_path).backends is None


def test_the_socket_path_is_short_whatever_the_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    paths = config.Paths(Path("/" + "deep/" * 60))
    assert len(str(paths.socket)) <= 104
    assert paths.socket != config.Paths(Path("/other")).socket


def test_what_is_shown_holds_no_secret(tmp_path):
    shown = config.load({"join": "ian1secret"}, tmp_path).as_dict()
    assert "ian1secret" not in str(shown)
    assert shown["threads"] >= 1


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("threads = 2.5", "from 1 to 1024"),
        ("threads = true", "from 1 to 1024"),
        ("memory = true", "8G"),
        ("listen = 5", "a list of texts"),
        ('listen = [""]', "a list of texts"),
        ("backends = [1]", "a list of texts"),
        ('"precision" = "f64"', "f32"),
    ],
)
def test_a_value_of_the_file_is_told_with_its_line(tmp_path, written, said):
    key = written.split()[0].strip('"')
    (tmp_path / "config.toml").write_text(f"# {key} = 1\n\n{written}\n")
    with pytest.raises(AccelError, match=said) as refused:
        config.load({}, tmp_path)
    assert refused.value.message.startswith(f"{key} in {tmp_path / 'config.toml'}, line 3: ")


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("threads = 4\nthread = 5\n", 2, "'threads'"),
        ("[node]\nthreads = 4\n", 1, "threads"),
        ("\nnode.threads = 4\n", 2, "threads"),
        ('precisionn.x = "f32"', 1, "'precision'"),
        ('memory_bytes = "8G"', 1, "memory"),
    ],
)
def test_an_unknown_key_is_told_with_its_line_and_the_closest_known_one(tmp_path, text, line, hint):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(AccelError, match=f"line {line}$|line {line} ") as refused:
        config.load({}, tmp_path)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [("threads = = 4\n", "line 1, column 11"), ("# one\nthreads = 4\nthreads = 5\n", "line 3, column 12"),
     ("\nname = 'desk", "line 2, column 13"), ('peers = [\n"x",\n', "line 2, column 5"),
     ("threads", "line 1, column 8")],
)  # fmt: skip
def test_what_is_no_toml_is_told_with_line_and_column(tmp_path, text, place):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(AccelError) as refused:
        config.load({}, tmp_path)
    assert refused.value.code == "bad-config"
    assert refused.value.message.startswith(f"{tmp_path / 'config.toml'}, {place}: ")


def test_each_setting_says_where_it_comes_from(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text('# mine\nthreads = 1\nname = "file"\nprecision = "bf16"\n')
    monkeypatch.setenv("IPFS_ACCEL_THREADS", "2")
    monkeypatch.setenv("IPFS_ACCEL_NAME", "environment")
    found = config.explain({"threads": "3"}, tmp_path)
    assert found["threads"] == config.Found("threads", 3, "flag", "--threads")
    assert found["node_name"] == config.Found("name", "environment", "variable", "IPFS_ACCEL_NAME")
    assert found["precision"] == config.Found(
        "precision", "bf16", "file", f"precision in {tmp_path / 'config.toml'}, line 4"
    )
    assert found["log_json"] == config.Found("log_json", False, "default", "")
    assert config.find_data_dir(tmp_path) == config.Found("data_dir", tmp_path, "flag", "--data-dir")
    monkeypatch.setenv("IPFS_ACCEL_DATA_DIR", str(tmp_path))
    assert config.find_data_dir(None) == config.Found("data_dir", tmp_path, "variable", "IPFS_ACCEL_DATA_DIR")
    monkeypatch.delenv("IPFS_ACCEL_DATA_DIR")
    assert config.find_data_dir(None).origin == "default"


def test_a_file_that_is_no_text_or_no_file(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(AccelError, match=r"config\.toml"):
        config.load({}, tmp_path)
    with pytest.raises(AccelError, match="is no folder"):
        config.load({}, tmp_path / "config.toml")


def test_every_setting_has_a_variable(tmp_path, monkeypatch):
    peer = "/ip4/192.168.1.5/tcp/4011/p2p/12D3KooW"
    given = {
        "BACKENDS": "cpu,openvino", "THREADS": "3", "MEMORY": "8G", "PRECISION": "bf16", "NAME": "desk",
        "LISTEN": "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2", "PEERS": peer, "JOIN": "ian1x", "MDNS": "off",
        "LOG_LEVEL": "debug", "LOG_JSON": "yes", "LISTEN_CLIENTS": "[::]:4012",
        "CID_PROFILE": "unixfs-v0-2015", "PUBLIC": "true", "IPFS_PEERS": peer,
        "DISK_LIMIT": "90G", "KUBO": "/ip4/127.0.0.1/tcp/5001", "KUBO_AUTH": "Bearer x", "KUBO_PUBLISH": "1",
        "GATEWAYS": "https://a.example/, http://b.example:8080", "PIN_GRACE": "45",
    }  # fmt: skip
    for key, value in given.items():
        monkeypatch.setenv(f"IPFS_ACCEL_{key}", value)
    loaded = config.load({}, tmp_path)
    assert loaded == config.Config(
        data_dir=tmp_path,
        backends=("cpu", "openvino"),
        threads=3,
        memory_bytes=8 << 30,
        precision="bf16",
        node_name="desk",
        listen=("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"),
        peers=(peer,),
        join="ian1x",
        mdns=False,
        log_level="debug",
        log_json=True,
        listen_clients=HostPort("::", 4012),
        disk_limit=90 << 30,
        kubo="/ip4/127.0.0.1/tcp/5001",
        kubo_auth="Bearer x",
        kubo_publish=True,
        gateways=("https://a.example", "http://b.example:8080"),
        pin_grace_s=45.0,
        cid_profile="unixfs-v0-2015",
        public=True,
        ipfs_peers=(peer,),
    )


def test_variables_that_are_empty_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("IPFS_ACCEL_THREADS", "")
    assert config.load({}, tmp_path).threads >= 1
    monkeypatch.setenv("IPFS_ACCEL_MEMRY", "8G")
    with pytest.raises(AccelError, match="unknown variable IPFS_ACCEL_MEMRY") as refused:
        config.load({}, tmp_path)
    assert "'IPFS_ACCEL_MEMORY'" in refused.value.hint


def test_a_client_looks_where_a_node_may_listen(tmp_path, runtime_dir, monkeypatch):
    paths = config.Paths(tmp_path)
    with monkeypatch.context() as elsewhere:
        elsewhere.delenv("XDG_RUNTIME_DIR")
        without = config.Paths(tmp_path).socket
    assert paths.socket == runtime_dir / "ipfs-accel-node" / without.name
    assert paths.sockets[0] == paths.socket
    assert without in paths.sockets
    assert len({path.name for path in paths.sockets}) == 1


def test_the_data_folder_is_made_or_said_to_be_none(tmp_path, monkeypatch):
    assert config.make_data_dir(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "under"):
        with pytest.raises(AccelError, match="bad-config"):
            config.make_data_dir(wrong)
    monkeypatch.setattr(config.os, "access", lambda *_: False)
    with pytest.raises(AccelError, match="permission-denied"):
        config.make_data_dir(tmp_path)


def test_home_folders():
    assert config.absolute("~") == Path.home()
    with pytest.raises(AccelError, match="bad-config"):
        config.absolute("~nobody-of-that-name/x")

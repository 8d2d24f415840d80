"""The configuration: where each value comes from, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipfs_accel_node.node import config
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
    [("threads", "many", "--threads"), ("threads", "0", "from 1"), ("memory_bytes", "lots", "8G"),
     ("backends", "abacus", "openvino"), ("precision", "f64", "f32"), ("node_name", "a b", "letters"),
     ("peers", ["1.2.3.4"], "/p2p/"), ("mdns", "perhaps", "true or false"), ("log_level", "loud", "debug")],
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
    assert config.parse_size(text) == size


@given(st.text(max_size=10))
def test_any_text_is_a_size_or_a_value_error(text):
    try:
        assert config.parse_size(text) > 0
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

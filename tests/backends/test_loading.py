"""Hostile folders are refused with a code, before anything large is allocated, and quickly."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.interface import BackendError
from ipfs_accel_node.backends.loading import inspect


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "model")


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def rewrite_header(folder, change):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    packed = json.dumps(change(header)).encode()
    path.write_bytes(struct.pack("<Q", len(packed)) + packed + data[8 + length :])


def without_last_layer(header):
    return {name: entry for name, entry in header.items() if "layer.1." not in name}


def outside_the_file(header):
    name = next(name for name in header if name != "__metadata__")
    header[name]["data_offsets"] = [1 << 40, (1 << 40) + 4]
    return header


def wrong_length(header):
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [1 << 30, 1 << 30]
    return header


def overlapping(header):
    names = [name for name, entry in header.items() if name != "__metadata__" and entry["shape"] == [64]]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]
    return header


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def as_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def link_out(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")


def index_out(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../../etc/passwd"}}))


HOSTILE = {
    "no config": (remove("config.json"), "not-a-model"),
    "config is no JSON": (write("config.json", b"{"), "not-a-model"),
    "config is a list": (write("config.json", b"[]"), "not-a-model"),
    "config nests deep": (write("config.json", b"[" * 100_000), "not-a-model"),
    "config is huge": (write("config.json", b" " * (2 << 20)), "not-a-model"),
    "no type": (lambda folder: change_config(folder, model_type=None), "not-a-model"),
    "unknown type": (lambda folder: change_config(folder, model_type="evil"), "unsupported-task"),
    "code of its own": (lambda folder: change_config(folder, auto_map={"AutoModel": "ev.M"}), "unsafe-model"),
    "generation code": (lambda folder: change_config(folder, custom_generate="x/y"), "unsafe-model"),
    "pickles": (as_pickle, "unsafe-model"),
    "weights link out": (link_out, "unsafe-model"),
    "index leads out": (index_out, "unsafe-model"),
    "no weights": (remove("model.safetensors"), "not-a-model"),
    "truncated": (write("model.safetensors", b"\x10"), "not-a-model"),
    "huge header": (write("model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"), "not-a-model"),
    "header is no JSON": (write("model.safetensors", struct.pack("<Q", 4) + b"abcd"), "not-a-model"),
    "tensors outside": (lambda folder: rewrite_header(folder, outside_the_file), "not-a-model"),
    "tensors too long": (lambda folder: rewrite_header(folder, wrong_length), "not-a-model"),
    "tensors overlap": (lambda folder: rewrite_header(folder, overlapping), "not-a-model"),
    "a layer is missing": (lambda folder: rewrite_header(folder, without_last_layer), "not-a-model"),
    "more layers said": (lambda folder: change_config(folder, num_hidden_layers=3), "not-a-model"),
    "absurd width": (lambda folder: change_config(folder, hidden_size=65_536), "not-a-model"),
    "absurd vocabulary": (lambda folder: change_config(folder, vocab_size=1 << 23), "not-a-model"),
    "absurd intermediate": (lambda folder: change_config(folder, intermediate_size=1 << 20), "not-a-model"),
    "width is a text": (lambda folder: change_config(folder, hidden_size="64"), "not-a-model"),
    "layers below nothing": (lambda folder: change_config(folder, num_hidden_layers=-1), "not-a-model"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_are_refused(folder, case):
    spoil, code = HOSTILE[case]
    spoil(folder)
    with pytest.raises(BackendError) as refused:
        inspect(folder)
    assert refused.value.code == code
    assert refused.value.message


BAD_BESIDE_THE_WEIGHTS = {
    "no tokenizer": (remove("tokenizer.json"), "not-a-model"),
    "broken tokenizer": (write("tokenizer.json", b"{}"), "not-a-model"),
    "broken modules": (write("modules.json", b"{}"), "not-a-model"),
    "unknown module": (write("modules.json", b'[{"type": "sentence_transformers.models.Dense"}]'), "not-a-model"),
}


@pytest.mark.parametrize("case", BAD_BESIDE_THE_WEIGHTS)
def test_what_stands_beside_the_weights_is_checked_too(folder, case, cache):
    from ipfs_accel_node.backends.interface import LoadOptions

    spoil, code = BAD_BESIDE_THE_WEIGHTS[case]
    spoil(folder)
    with pytest.raises(BackendError) as refused:
        registry.create("cpu").load(folder, LoadOptions(cache=cache, key=case))
    assert refused.value.code == code


def test_a_sound_folder_is_understood(tiny):
    facts = inspect(tiny)
    assert (facts.model_type, facts.task) == ("bert", "feature-extraction")
    assert facts.memory_bytes > sum(tensor.size for tensor in facts.tensors.values())


def test_a_folder_that_cannot_be_converted_says_so(folder, cache):
    from ipfs_accel_node.backends.interface import LoadOptions

    change_config(folder, hidden_act="no-such-activation")
    with pytest.raises(BackendError) as failed:
        registry.create("openvino").load(folder, LoadOptions(cache=cache, key="bad"))
    assert failed.value.code == "conversion-failed"
    assert list(cache.glob("*.tmp")) == []


@pytest.mark.parametrize("engine", ["cpu", "openvino", "echo"])
def test_probing_computes_and_says_on_what(engine):
    info = registry.create(engine).probe()
    assert info.backend.split(":")[0] == engine
    assert info.tasks
    assert info.library


def test_a_backend_that_is_not_there_is_told_with_what_to_do(monkeypatch):
    with pytest.raises(BackendError, match="no backend is called") as unknown:
        registry.create("abacus")
    assert "openvino" in unknown.value.hint
    monkeypatch.setattr("ipfs_accel_node.backends.registry.find_spec", lambda _name: None)
    with pytest.raises(BackendError, match="not installed") as missing:
        registry.create("cpu")
    assert "pip install 'ipfs-accel-node[torch]'" in missing.value.hint
    assert registry.available() == []

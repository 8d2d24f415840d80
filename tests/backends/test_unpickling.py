"""Weights that are pickles become safetensors with the same numbers; what would run code or fill memory is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
import transformers
from ipfs_accel_node.backends.interface import BackendError
from ipfs_accel_node.backends.loading import inspect
from ipfs_accel_node.backends.making import make_sentence_model, make_text_model
from ipfs_accel_node.backends.unpickling import convert_pickles


def pickled(folder, *, shards=1, legacy=False):
    """The folder with its weights as PyTorch's own file, or several with an index."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if (folder / "config.json").read_text().count(
        '"tie_word_embeddings": false'
    ) == 0 and "lm_head.weight" not in weights:
        embedding = next((key for key in weights if key.endswith(("embed_tokens.weight", "wte.weight"))), None)
        if embedding:
            weights["lm_head.weight"] = weights[embedding]  # as published pickles have it: two names, one tensor
    names = list(weights)
    index = {}
    for shard in range(shards):
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        part = {key: weights[key] for key in names[shard::shards]}
        torch.save(part, folder / name, _use_new_zipfile_serialization=not legacy)
        index |= dict.fromkeys(part, name)
    if shards > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


@pytest.mark.parametrize(
    ("model_type", "legacy", "shards"), [("opt", False, 1), ("gpt2", True, 1), ("llama", False, 3)]
)
def test_the_converted_model_computes_what_the_pickled_did(tmp_path, model_type, legacy, shards):
    whole = make_text_model(tmp_path / "whole", model_type)
    folder = pickled(shutil.copytree(whole, tmp_path / "pickled"), shards=shards, legacy=legacy)
    digest = convert_pickles(folder, tmp_path / "converted")
    assert len(digest) == 64
    facts = inspect(tmp_path / "converted")
    assert facts.model_type == model_type
    assert not list((tmp_path / "converted").glob("*.bin*"))
    ids = torch.tensor([[5, 9, 17, 40]])
    logits = []
    for each in (whole, tmp_path / "converted"):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            each, use_safetensors=True, output_loading_info=True
        )
        assert not report["missing_keys"]
        with torch.no_grad():
            logits.append(model.eval()(ids).logits.numpy())
    assert np.array_equal(*logits)


def test_types_stay_and_views_are_written_whole(tmp_path):
    folder = make_sentence_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    base = torch.arange(24, dtype=torch.bfloat16).reshape(4, 6)
    torch.save({"state_dict": {"a": base, "b": base.t(), "c": base[1:3], "again": base}}, folder / "pytorch_model.bin")
    convert_pickles(folder, tmp_path / "converted")
    from safetensors.torch import load_file

    loaded = load_file(tmp_path / "converted" / "model.safetensors")
    assert loaded["a"].dtype == torch.bfloat16
    assert torch.equal(loaded["a"], base)
    assert torch.equal(loaded["b"], base.t())
    assert torch.equal(loaded["c"], base[1:3])
    assert "again" not in loaded, "a second name of the same tensor is not written"


class Evil:
    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('/tmp/ipfs-accel-node-evil').write_text('ran')",)


def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 28))
        archive.writestr("archive/version", "3")


def view_bomb(path):
    torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, path)


HOSTILE = {
    "code": lambda path: path.write_bytes(pickle.dumps({"a": Evil()})),
    "code in a zip": lambda path: torch.save({"a": Evil()}, path),
    "no pickle": lambda path: path.write_bytes(b"hello"),
    "empty": lambda path: path.write_bytes(b""),
    "a list": lambda path: torch.save([torch.zeros(3)], path),
    "a number": lambda path: torch.save({"a": 5}, path),
    "nothing": lambda path: torch.save({}, path),
    "sparse": lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path),
    "a zip bomb": zip_bomb,
    "a terabyte out of four bytes": view_bomb,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_hostile_is_refused(tmp_path, case):
    folder = make_sentence_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    HOSTILE[case](folder / "pytorch_model.bin")
    with pytest.raises(BackendError) as refused:
        convert_pickles(folder, tmp_path / "converted")
    assert refused.value.code in ("unsafe-model", "too-large")
    from pathlib import Path

    assert not Path("/tmp/ipfs-accel-node-evil").exists()


def test_an_index_that_leads_out_is_refused(tmp_path):
    folder = make_sentence_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(3)}, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "../../secret.bin"}}')
    with pytest.raises(BackendError, match="leads out"):
        convert_pickles(folder, tmp_path / "converted")


def test_there_has_to_be_something_to_convert(tmp_path):
    folder = make_sentence_model(tmp_path / "model")
    with pytest.raises(BackendError, match="safetensors already"):
        convert_pickles(folder, tmp_path / "converted")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackendError, match=r"no pytorch_model\.bin"):
        convert_pickles(folder, tmp_path / "converted")

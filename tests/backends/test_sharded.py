"""Weights in several files, and weights of over a billion numbers, load and answer as any others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ipfs_accel_node.backends.loading import inspect
from ipfs_accel_node.backends.making import make_text_model

from .conftest import ENGINES


def sharded(whole: Path, folder: Path, size: str) -> Path:
    """The same model with its weights in files of at most that size."""
    import torch
    from transformers import AutoModelForCausalLM

    shutil.copytree(whole, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32).save_pretrained(folder, max_shard_size=size)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_text_model(tmp_path_factory.mktemp("whole") / "model", "llama")


@pytest.mark.engines
@pytest.mark.parametrize("engine", ENGINES)
def test_a_sharded_model_writes_what_the_whole_one_does(engine, whole, load, tmp_path):
    folder = sharded(whole, tmp_path / "sharded", "100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert inspect(folder).tensors.keys() == inspect(whole).tensors.keys()
    texts = [load(engine, each).run("Once upon a time", {"max_new_tokens": 8}).value for each in (whole, folder)]
    assert texts[0]["token_ids"] == texts[1]["token_ids"]


@pytest.mark.engines
@pytest.mark.soak
def test_a_model_of_over_a_billion_parameters_loads_and_answers(tmp_path, cache):
    import torch
    from ipfs_accel_node.backends import registry
    from ipfs_accel_node.backends.interface import LoadOptions
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = make_text_model(tmp_path / "large", "llama")
    config = AutoConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 2048, 8192, 17
    config.num_attention_heads = config.num_key_value_heads = 16
    config.head_dim = 128
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(torch.float32)
    assert sum(each.numel() for each in model.parameters()) > 1_000_000_000
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="500MB")
    del model
    loaded = registry.create("cpu").load(folder, LoadOptions(cache=cache, key="large", precision="bf16"))
    try:
        written = loaded.run("Once upon a time", {"max_new_tokens": 4, "ignore_eos": True})
        assert len(written.value["token_ids"]) == 4
        assert loaded.memory_bytes > 2_000_000_000
    finally:
        loaded.close()

"""Models with random weights, made by a process of its own: they say so, run, and come again the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.families.known import MODEL_TYPES
from ipfs_accel_node.backends.interface import BackendError, LoadOptions
from ipfs_accel_node.backends.loading import inspect
from ipfs_accel_node.backends.make import make_model
from ipfs_accel_node.backends.making_apart import make_apart
from ipfs_accel_node.backends.making_shapes import LIKE, MADE, REFERENCE, shape_of
from ipfs_accel_node.backends.weights import weights_of


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(folder: Path, cache: Path):
    model = registry.create("cpu").load(folder, LoadOptions(cache=cache, key=folder.name, threads=1))
    try:
        sample = model.samples()[0]
        return model.run(sample.inputs, sample.params).value
    finally:
        model.close()


@pytest.mark.parametrize("family", MADE)
def test_every_family_is_made_with_all_that_belongs_to_it_and_runs(tmp_path, family):
    folder = make_model(tmp_path / "model", family)
    facts = inspect(folder)
    assert facts.model_type == ("bert" if family == "sentence" else family)
    assert weights_of(folder) == "random"
    assert (folder / "tokenizer.json").exists() or family in ("wav2vec2", "videomae")
    assert run(folder, tmp_path) is not None


def test_the_reference_size_has_the_parameters_of_the_published_one(tmp_path):
    """As prajjwal1/bert-tiny has them without the pooler, which is not kept here, and google/t5-efficient-tiny."""
    folder, states = tmp_path / "bert", []
    make_apart(folder, "bert", "reference", progress=lambda *state: states.append(state))
    assert states == [("making", 0, 1), ("making", 1, 1)]
    said = json.loads((folder / "weights.json").read_text())
    assert said == {"weights": "random", "family": "bert", "size": "reference", "seed": 0}
    make_model(tmp_path / "t5", "t5", "reference")
    for family, parameters in (("bert", 4_369_408), ("t5", 15_570_688)):
        assert sum(tensor.size for tensor in inspect(tmp_path / family).tensors.values()) == 4 * parameters
        assert run(tmp_path / family, tmp_path) is not None


def test_the_same_comes_again_byte_by_byte_and_another_seed_is_another_model(tmp_path):
    make_apart(tmp_path / "apart", "gpt2")
    again, other = make_model(tmp_path / "here", "gpt2"), make_model(tmp_path / "other", "gpt2", seed=1)
    assert files_of(tmp_path / "apart") == files_of(again)
    assert {name for name, digest in files_of(other).items() if files_of(again)[name] != digest} == {
        "model.safetensors", "weights.json"
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["apart", "here", "other"]


def test_what_is_not_made_is_refused(tmp_path):
    (tmp_path / "there").mkdir()
    for folder, family, size, seed in (
        ("new", "nothing", "tiny", 0), ("new", "bert", "huge", 0), ("new", "bert", "tiny", -1),
        ("new", "bert", "tiny", 1 << 64), ("there", "bert", "tiny", 0),
    ):  # fmt: skip
        with pytest.raises(BackendError) as refused:
            make_apart(tmp_path / folder, family, size, seed)
        assert refused.value.code == "bad-input"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_deadline_leaves_nothing_behind(tmp_path):
    with pytest.raises(BackendError) as failed:
        make_apart(tmp_path / "model", "bert", timeout_s=0.05)
    assert failed.value.code == "deadline-exceeded"
    assert list(tmp_path.iterdir()) == []


def test_every_made_family_has_a_shape_and_is_served():
    assert set(LIKE) == {family for family, sizes in MADE.items() if REFERENCE in sizes}
    assert set(MADE) - {"sentence"} <= set(MODEL_TYPES)
    for family in LIKE:
        if family not in ("clip", "xclip", "clap"):
            assert shape_of(family, "reference") != shape_of(family, "tiny")

"""VideoMAE as it comes from pretraining, without a head: the mean of its last states is a video's vector."""

from __future__ import annotations

import numpy as np
import pytest
from ipfs_accel_node.backends.interface import BackendError
from ipfs_accel_node.backends.making_media import make_media_model

TOLERANCE = 1e-4
FILMS = [np.random.default_rng(seed).integers(0, 256, (8, 48, 64, 3), np.uint8) for seed in (2, 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_media_model(tmp_path_factory.mktemp("base") / "model", "videomae_base")


@pytest.fixture(scope="module")
def expected(folder):
    """What transformers gives: [videos, width]."""
    import torch
    from transformers import VideoMAEImageProcessor, VideoMAEModel

    processor, model = VideoMAEImageProcessor.from_pretrained(folder), VideoMAEModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = [model(**processor(list(film), return_tensors="pt")).last_hidden_state[0] for film in FILMS]
    return np.stack([each.mean(0).numpy() for each in states])


@pytest.mark.parametrize("engine", ["cpu", "openvino"])
def test_a_video_becomes_a_vector(load, folder, expected, engine):
    model = load(engine, folder)
    alone = model.run(FILMS[0], {})
    assert alone.value == pytest.approx(expected[0], abs=TOLERANCE)
    assert (alone.value.dtype, alone.value.shape, alone.counts["videos"]) == (np.float32, (32,), 1)
    assert model.run({"videos": FILMS}, {}).value == pytest.approx(expected, abs=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > TOLERANCE
    told = model.task, model.details["family"], model.details["dimensions"], model.details["pooling"]
    assert told == ("feature-extraction", "videomae_base", 32, "mean")
    for sample in model.samples():
        model.run(sample.inputs, sample.params)


@pytest.mark.parametrize(("inputs", "params"), [(FILMS[0], {"top_k": 1}), (b"no film", {}), ("a text", {})])
def test_what_cannot_be_is_told(load, folder, inputs, params):
    with pytest.raises(BackendError) as refused:
        load("cpu", folder).run(inputs, params)
    assert refused.value.code == "bad-input"

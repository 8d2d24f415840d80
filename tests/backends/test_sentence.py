"""Sentence embeddings agree with transformers on every engine, whatever the texts."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from ipfs_accel_node.backends.families.sentence import Pooling, batches, padded, pool
from ipfs_accel_node.backends.interface import BackendError, RunContext

ENGINES = ("cpu", "openvino")
TEXTS = {
    "one": ["A man is playing guitar"],
    "mixed lengths": ["word " * count for count in (1, 3, 50, 2, 120, 7)],
    "empty": ["", "not empty", ""],
    "over 256 tokens": ["a long story about the sea " * 100, "short"],
    "other scripts": ["日本語のテキスト", "Привет, мир", "مرحبا بالعالم", "🙂🙃", "naïve café"],
    "the same twice": ["twice", "once", "twice"],
}


@pytest.fixture(scope="session")
def reference(minilm):
    """transformers itself, one text at a time, pooled as the model's modules.json says."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()

    def states(text: str):
        with torch.no_grad():
            encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            return model(**encoded).last_hidden_state[0]

    return states


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", TEXTS)
def test_vectors_agree_with_transformers(load, minilm, reference, engine, case):
    import torch

    vectors = load(engine, minilm).run(TEXTS[case], {}).value
    expected = torch.stack([reference(text).mean(0) for text in TEXTS[case]])
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS[case]), 384)
    assert np.abs(vectors - expected).max() < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_raw_states_and_other_poolings(load, minilm, reference, engine):
    model = load(engine, minilm)
    texts = ["short", "a somewhat longer text"]
    raw = model.run(texts, {"pooling": "none"}).value
    for text, states in zip(texts, raw, strict=True):
        expected = reference(text).numpy()
        assert states.shape == expected.shape
        assert np.abs(states - expected).max() < 1e-4
    first = model.run(texts, {"pooling": "cls", "normalize": False}).value
    assert np.allclose(first, [states[0] for states in raw], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_known_similarities(load, minilm, engine):
    texts = ["The cat is sleeping", "The kitten sleeps.", "Quarterly earnings beat expectations"]
    cat, kitten, finance = load(engine, minilm).run(texts, {}).value
    assert cat @ kitten == pytest.approx(0.812, abs=1e-3)
    assert cat @ finance == pytest.approx(0.021, abs=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_shapes_of_one_of_many_and_of_none(load, tiny, engine):
    model = load(engine, tiny)
    one = model.run("a cat", {})
    assert one.value.shape == (64,)
    assert model.run([], {}).value.shape == (0, 64)
    many = model.run([f"cat {number}" for number in range(300)], {})
    assert many.value.shape == (300, 64)
    assert np.allclose(np.linalg.norm(many.value, axis=1), 1, atol=1e-5)
    assert many.counts["texts"] == 300
    assert many.counts["tokens"] > 900
    assert set(many.timings) == {"preprocess_s", "compute_s", "postprocess_s"}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_ran_is_told(load, minilm, engine):
    model = load(engine, minilm)
    details = model.details
    assert model.precision == "f32"
    assert details["precision"] in ("f32", "float32")
    assert details["device"].lower() == "cpu"
    assert details["library"].split()[0] == {"cpu": "torch", "openvino": "openvino"}[engine]
    assert (details["pooling"], details["normalize"], details["max_tokens"]) == ("mean", True, 256)
    assert model.memory_bytes > 80 << 20


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("inputs", "params"),
    [(5, {}), (["a", 5], {}), ({"text": "a"}, {}), (["a"], {"pooling": "max"}), (["a"], {"normalize": "yes"}),
     (["a"], {"unknown": 1})],
)  # fmt: skip
def test_bad_input_is_told(load, tiny, engine, inputs, params):
    with pytest.raises(BackendError) as refused:
        load(engine, tiny).run(inputs, params)
    assert refused.value.code == "bad-input"


@pytest.mark.parametrize("engine", ENGINES)
def test_cancelling_stops_between_batches(load, tiny, engine):
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(BackendError, match="cancelled"):
        load(engine, tiny).run(["a long text " * 40] * 500, {}, RunContext(cancelled))
    assert len(asked) == 2


def test_many_threads_through_one_model_each_get_their_own(load, tiny):
    model = load("openvino", tiny)
    texts = [f"{number} " * (1 + number % 9) for number in range(64)]
    expected = [model.run(text, {}).value for text in texts]
    wrong = []

    def check(place: int) -> None:
        for _ in range(5):
            if not np.allclose(model.run(texts[place], {}).value, expected[place], atol=1e-5):
                wrong.append(place)

    threads = [threading.Thread(target=check, args=(place,)) for place in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_openvino_needs_neither_torch_nor_transformers(tiny, cache, load):
    """In a process of its own, once the model is converted."""
    import subprocess
    import sys

    load("openvino", tiny)
    program = f"""
import sys
from pathlib import Path
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.interface import LoadOptions
backend = registry.create("openvino")
backend.probe()
model = backend.load(Path({str(tiny)!r}), LoadOptions(cache=Path({str(cache)!r}), key={str(tiny)!r}))
model.run(["a cat"], {{}})
print(sorted(set(sys.modules) & {{"torch", "transformers", "optimum", "trio", "libp2p"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_batches_hold_every_place_once_and_stay_in_bounds():
    lengths = [5, 1, 300, 7, 0, 12, 256, 1]
    made = list(batches(lengths, budget=512))
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 512


def test_padding_and_pooling_ignore_what_is_padding():
    ids, mask = padded([[7, 8, 9], [5]], pad_id=1)
    assert ids.tolist() == [[7, 8, 9], [5, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    states = np.array([[[1.0], [2.0], [3.0]], [[4.0], [99.0], [99.0]]], np.float32)
    assert [each.tolist() for each in pool(states, mask, Pooling("mean", False, ""))] == [[2.0], [4.0]]
    assert [each.shape for each in pool(states, mask, Pooling("none", False, ""))] == [(3, 1), (1, 1)]

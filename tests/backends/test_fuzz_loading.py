"""Models' settings and headers that lie: a model comes out, or a refusal with a code, and it takes little memory."""

from __future__ import annotations

import json
import tracemalloc

from fuzzing import targets
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = st.sampled_from([0, 1, 4, 8, 16, 128, -1, 1 << 23, 1 << 24, 1 << 63, 1 << 2000, 0.5, float("inf"), True])
ANYTHING = st.recursive(
    st.none() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["bert", "distilbert", "mpnet", "roberta", "echo", "evil", "", "whisper", "llama"])
SIZES = ("hidden_size", "vocab_size", "num_hidden_layers", "intermediate_size", "dim", "auto_map")
CONFIGS = st.fixed_dictionaries(
    {"model_type": TYPES | ANYTHING},
    optional=dict.fromkeys(SIZES, NUMBERS | ANYTHING),
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F4", ""]) | ANYTHING,
        "shape": st.lists(NUMBERS, max_size=4) | ANYTHING,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=3) | ANYTHING,
    },
)
NAMES = st.sampled_from(
    ["embeddings.word_embeddings.weight", "encoder.layer.0.w", "layer.x", "layer.99999999999999999999", "__metadata__"]
) | st.text(max_size=8)
HEADERS = st.dictionaries(NAMES, TENSORS | ANYTHING, max_size=5)


@settings(max_examples=100, deadline=None)
@given(CONFIGS | ANYTHING, HEADERS | ANYTHING)
def test_settings_and_headers_of_any_kind(config, header):
    targets.safetensors(targets.framed_model(json.dumps(config).encode(), json.dumps(header).encode()))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_bytes(config, header):
    targets.safetensors(targets.framed_model(config, header))
    targets.safetensors(b"\x80\x00" + header)


def test_absurd_numbers_and_depths_cost_nothing():
    sizes = {"hidden_size": 4, "vocab_size": 8, "num_hidden_layers": (1 << 24) - 1, "intermediate_size": 4}
    config = json.dumps({"model_type": "bert", **sizes}).encode()
    embeddings = {"dtype": "F32", "shape": [8, 4], "data_offsets": [0, 128]}
    weights = {"embeddings.word_embeddings.weight": embeddings, f"layer.{'9' * 5000}.x": embeddings}
    tracemalloc.start()
    long = {"dtype": "F32", "shape": [9] * 500_000, "data_offsets": [0, 4]}
    for header in (json.dumps(weights).encode(), json.dumps({"a": long}).encode(), b"[" * 8000, b"9" * 8000):
        targets.safetensors(targets.framed_model(config, header))
        targets.safetensors(targets.framed_model(header[:8000], b"{}"))
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 64 << 20

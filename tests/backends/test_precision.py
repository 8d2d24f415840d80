"""Each precision on each engine: what is asked for runs and stays close to f32, or is refused with a code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ipfs_accel_node.backends import registry, torch_backend
from ipfs_accel_node.backends.canary import Canary, Listening, some_ids, try_stage
from ipfs_accel_node.backends.conversion import ensure_converted
from ipfs_accel_node.backends.figures import figures
from ipfs_accel_node.backends.footprint import Footprint
from ipfs_accel_node.backends.hardware import cpu_flags
from ipfs_accel_node.backends.interface import BackendError, LoadOptions
from ipfs_accel_node.backends.making import make_text_model
from ipfs_accel_node.backends.making_media import make_media_model
from ipfs_accel_node.backends.precision import (
    AUTO,
    NAMES,
    Abilities,
    bits_of,
    choose,
    form_of,
    of_openvino,
    of_torch_cpu,
)
from ipfs_accel_node.backends.signs import Found, prove
from ipfs_accel_node.backends.torch_int8 import linear, packed, quantize

TEXTS = ["a cat sleeps", "interest rates rose " * 9, "x"]
#: The smallest cosine between a vector in this precision and in f32.
CLOSE = {"f32": 0.99999, "bf16": 0.999, "fp16": 0.9999, "int8": 0.998}
#: How far the logarithm of the best token's probability may be off.
FAR = {"f32": 1e-4, "bf16": 0.05, "fp16": 0.01, "int8": 0.1, "int4": 0.3}
#: What has no bf16 says so, and is then not asked for it.
BF16 = pytest.mark.skipif("avx512_bf16" not in cpu_flags(), reason="this processor has no bf16 of its own")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return make_text_model(tmp_path_factory.mktemp("text") / "model")


@pytest.fixture
def load(cache):
    loaded = []

    def load(engine: str, folder: Path, precision: str):
        options = LoadOptions(cache=cache, key=str(folder), precision=precision)
        loaded.append(registry.create(engine).load(folder, options))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


def refused(call, *arguments, **keywords) -> BackendError:
    with pytest.raises(BackendError) as failed:
        call(*arguments, **keywords)
    return failed.value


# --- the rule


def test_what_is_asked_for_is_taken_and_nothing_else_ever():
    able = Abilities("gpu:0", ("bf16", "int8"), default="bf16")
    assert [choose(asked, able, "text").name for asked in ("bf16", "int8", AUTO)] == ["bf16", "int8", "bf16"]
    assert choose("bf16", able, "text").asked_for
    assert not choose(AUTO, able, "text").asked_for
    error = refused(choose, "f32", able, "text")
    assert error.code == "unsupported-precision"
    assert ("gpu:0" in error.message, error.hint) == (True, "It runs them in bf16, int8.")
    assert refused(choose, "f64", able, "text").code == "bad-input"


@pytest.mark.parametrize("able", [of_torch_cpu({"avx2"}), of_openvino("CPU", ["FP32", "BF16", "INT8"])])
def test_processors_compute_in_f32_unless_asked(able):
    assert {choose(AUTO, able, family).name for family in ("sentence", "text", "clip")} == {"f32"}


def test_what_a_machine_lacks_is_refused():
    assert "fp16" not in of_torch_cpu({"avx2"}).possible
    assert "fp16" in of_torch_cpu({"avx512_fp16"}).possible
    assert "bf16" not in of_openvino("CPU", ["FP32"]).possible


def test_four_bits_are_for_language_models_alone():
    able = of_openvino("CPU", ["FP32"])
    assert choose("int4", able, "text").name == "int4"
    assert refused(choose, "int4", able, "clip").code == "unsupported-precision"
    assert [bits_of("int4", "whisper", stage) for stage in ("read", "decode")] == [8, 4]
    assert [bits_of(form_of(name), "text", "openvino_model") for name in NAMES] == [32, 32, 16, 8, 4]


# --- engines


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("cpu", "bf16"), ("cpu", "int8"), pytest.param("openvino", "bf16", marks=BF16), ("openvino", "int8")],
)
def test_vectors_stay_close(load, tiny, engine, precision):
    model = load(engine, tiny, precision)
    found, expected = model.run(TEXTS, {}).value, load("cpu", tiny, AUTO).run(TEXTS, {}).value
    assert (found * expected).sum(1).min() > CLOSE[precision]
    assert (model.precision, model.details["precision_asked_for"]) == (precision, True)
    evidence = model.details["evidence"]
    assert set(evidence["weights"]) & {"bf16": {"bf16", "f32"}, "int8": {"i8", "u8"}}[precision]
    assert [each.lower() for each in evidence["devices"]] == ["cpu"]
    assert evidence["canary"]["parts"] == 1


def best_next(engine: str, folder: Path, precision: str, cache: Path) -> float:
    """The logarithm of the probability of the best token to come."""
    options = LoadOptions(cache=cache, key=str(folder), precision=precision)
    if engine == "openvino":
        from ipfs_accel_node.backends.openvino_text import open_pipeline, scoring

        converted = ensure_converted(folder, "text-generation", form_of(precision), options)
        return float(scoring(open_pipeline(converted, "CPU", options))(some_ids(259))[0][1])
    import torch
    from ipfs_accel_node.backends.torch_text import scoring

    model = torch_backend.load_checked(folder, "AutoModelForCausalLM", getattr(torch, "bfloat16"
                                       if precision == "bf16" else "float32"))  # fmt: skip
    if precision == "int8":
        quantize(model)
    return float(torch.log_softmax(torch.from_numpy(scoring(model)(some_ids(259))[0][0]), 0).max())


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("cpu", "bf16"), ("cpu", "int8"), ("openvino", "f32"), ("openvino", "fp16"), ("openvino", "int4")],
)
def test_texts_stay_close(load, text, cache, engine, precision):
    model = load(engine, text, precision)
    out = model.run("Once upon a time", {"max_new_tokens": 8, "ignore_eos": True})
    assert len(out.value["token_ids"]) == 8
    assert model.precision == precision
    expected = best_next("cpu", text, "f32", cache)
    assert best_next(engine, text, precision, cache) == pytest.approx(expected, abs=FAR[precision])


@pytest.mark.parametrize("model_type", ["t5", "whisper", "llava", "videomae"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_families_in_parts_run_in_other_precisions(load, tmp_path, model_type, precision):
    model = load("cpu", make_media_model(tmp_path / "model", model_type), precision)
    sample = model.samples()[-1]
    assert model.run(sample.inputs, sample.params).value
    assert model.precision == precision


@pytest.mark.parametrize(("engine", "precision"), [("cpu", "int4"), ("openvino", "int4")])
def test_what_does_not_run_is_refused_before_anything_is_made(load, tiny, engine, precision):
    assert refused(load, engine, tiny, precision).code == "unsupported-precision"


def test_gpt2_is_made_smaller_too_and_shared_tables_stay_shared(tmp_path):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=3000)
    model = GPT2LMHeadModel(config).eval()
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        before = model(ids).logits
        quantize(model)
        after = model(ids).logits
    assert torch.nn.functional.cosine_similarity(before, after, dim=-1).min() > 0.999
    assert model.lm_head.codes is model.transformer.wte.codes
    assert sum(each.numel() for each in model.parameters() if each.dim() == 2) == 64 * 32  # the places alone


@pytest.mark.parametrize("rows", [1, 3, 16, 17, 64])
@pytest.mark.parametrize("own_product", [False, True])
def test_int8_layers_compute_what_their_weights_say(rows, own_product):
    import torch

    torch.manual_seed(rows)
    plain = torch.nn.Linear(64, 96)
    layer = linear(packed(plain.weight), plain.bias)
    layer.own_product = own_product and hasattr(torch, "_weight_int8pack_mm")
    states = torch.randn(2, rows, 64)
    step = plain.weight.detach().abs().amax(dim=1) / 127
    assert ((layer.weight - plain.weight).abs() <= 0.5001 * step[:, None]).all()
    expected = torch.nn.functional.linear(states, layer.weight, plain.bias)
    assert torch.allclose(layer(states), expected, atol=2e-2 * float(expected.abs().max().detach()))


def test_each_form_is_converted_once_and_kept_apart(tmp_path, monkeypatch):
    made = []

    def convert(_folder, target, form, _exported):
        made.append(form)
        (target / "openvino_model.xml").touch()

    monkeypatch.setattr("ipfs_accel_node.backends.conversion._run", convert)
    options = LoadOptions(cache=tmp_path, key="a")
    forms = ("f32", "fp16", "int8", "int4")
    folders = [ensure_converted(tmp_path, "feature-extraction", form, options) for form in forms * 2]
    assert made == list(forms)
    assert len(set(folders)) == len(forms)


# --- the signs


FOUND = Found(("cpu",), {"f32": 90, "i64": 5}, 4000, 1000, 5000, Canary(1, 0.0), {"f32": 7})


def test_signs_that_agree_are_told():
    evidence = prove(FOUND, device="CPU", stored="f32", computes_in="f32")
    assert evidence["devices"] == ["cpu"]
    assert (evidence["weight_bytes"], evidence["moved_bytes"]) == (4000, 5000)
    unknown = replace(FOUND, devices=(), products={}, moved_bytes=None)
    assert prove(unknown, device="CPU", stored="f32", computes_in="f32")["moved_bytes"] is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"devices": ("cpu", "GPU.0")}, "it is on GPU.0"),
        ({"weights": {"f32": 10, "bf16": 90}}, "its weights are bf16 90 %, f32 10 %"),
        ({"products": {"bf16": 6, "f32": 1}}, "compute in bf16"),
        ({"moved_bytes": 100}, "moved 100 bytes"),
        ({"canary": Canary(1, 0.0, ("the model gives the same whatever it is given",))}, "whatever it is given"),
    ],
)
def test_a_sign_that_disagrees_is_an_error(wrong, said):
    error = refused(prove, replace(FOUND, **wrong), device="cpu", stored="f32", computes_in="f32")
    assert error.code == "backend-disagrees"
    assert said in error.message


def test_four_bits_are_looked_for():
    eight = replace(FOUND, weights={"u8": 95, "u4": 5})
    assert refused(prove, eight, device="cpu", stored="int4", computes_in="f32").code == "backend-disagrees"
    prove(replace(FOUND, weights={"u8": 80, "u4": 20}), device="cpu", stored="int4", computes_in="f32")


@pytest.mark.parametrize(
    ("stage", "complaint"),
    [
        (lambda given: [given["x"] * 2], None),
        (lambda given: [np.ones(3)], "the same"),
        (lambda given: [given["x"] * np.nan], "not finite"),
        (lambda given: [np.ones(3), given["x"]], None),
    ],
)
def test_the_canary(stage, complaint):
    found = try_stage("part", stage, {"x": np.arange(3, dtype=np.float32), "attention_mask": np.ones(3)})
    assert (found.parts, len(found.complaints)) == (1, 0 if complaint is None else 1)
    assert all(complaint in each for each in found.complaints)


def test_a_part_that_never_ran_is_a_complaint(load, tiny):
    listening = Listening({"used": lambda given: [given["x"]], "unused": lambda given: [given["x"]]})

    class Half:
        """Goes through one of its parts."""

        def samples(self):
            return [type("Sample", (), {"inputs": np.ones(2), "params": {}})()]

        def run(self, inputs, _params):
            listening.stages["used"]({"x": inputs})

    assert listening.run(Half()).complaints == ("unused did not run",)


def test_a_backend_that_loads_something_else_is_found_out(load, tiny, monkeypatch):
    import torch

    real = torch_backend.load_checked
    monkeypatch.setattr(torch_backend, "load_checked", lambda folder, cls, _: real(folder, cls, torch.bfloat16))
    assert refused(load, "cpu", tiny, "f32").code == "backend-disagrees"


def test_weights_that_are_no_numbers_are_found_out(load, tiny, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny, tmp_path / "model")
    tensors = load_file(tiny / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][:] = np.nan
    save_file(tensors, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    error = refused(load, "cpu", tmp_path / "model", "f32")
    assert (error.code, "not finite" in error.message) == ("backend-disagrees", True)


def test_memory_that_moves_is_counted(tmp_path):
    size = 32 << 20
    (tmp_path / "weights").write_bytes(bytes(size))
    footprint = Footprint([tmp_path / "weights"])
    if footprint.moved() is None:
        pytest.skip("this system does not tell")
    held = np.ones(size, np.uint8)
    assert footprint.moved() >= size
    mapped = np.memmap(tmp_path / "weights", np.uint8, "r")
    assert mapped.sum() == 0
    assert footprint.moved() >= 2 * size
    assert held.any()


# --- figures


def test_figures_that_fit():
    written = figures({"compute_s": 3.0, "first_token_s": 1.0}, {"prompt_tokens": 50, "output_tokens": 21}, 3.1)
    assert written == pytest.approx(
        {"ms_per_query": 3100, "prompt_tokens_per_s": 50, "generation_s": 2, "tokens_per_s": 10}
    )
    assert figures({}, {"images": 4, "texts": 2}, 1.0) == {"ms_per_query": 250}
    assert figures({"compute_s": 0.5}, {"sounds": 1, "audio_ms": 2000}, 1.0)["realtime_factor"] == 0.5

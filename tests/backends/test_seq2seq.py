"""Whisper and T5: token for token what transformers writes, on each engine, alone, in lists, from several threads."""

from __future__ import annotations

import numpy as np
import pytest
from ipfs_accel_node.backends.families.samples import encoded_sound
from ipfs_accel_node.backends.interface import BackendError, RunContext
from ipfs_accel_node.backends.making_media import make_media_model

from .conftest import ENGINES, mixed_up

RATE = 16_000
TEXTS = ["summarize: the quick brown fox", "a", "Öl und Käse, 日本", "x " * 200]


def tone(seconds, hertz, seed=0):
    time = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.05, time.size)
    return (0.3 * np.sin(2 * np.pi * hertz * time) + noise).astype("f4")


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The folder of a tiny model of each type, made once."""
    return {each: make_media_model(tmp_path_factory.mktemp(each) / "model", each, seed=3) for each in ("whisper", "t5")}


@pytest.fixture(scope="session")
def transformers_t5(written):
    import torch
    import transformers

    model = transformers.T5ForConditionalGeneration.from_pretrained(written["t5"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(written["t5"])

    def write(text, limit):
        ids = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(ids.input_ids, max_new_tokens=limit, do_sample=False, num_beams=1)[0].tolist()[1:]
        return tokens[: tokens.index(1)] if 1 in tokens else tokens

    return write


@pytest.fixture(scope="session")
def transformers_whisper(written):
    import torch
    import transformers

    model = transformers.WhisperForConditionalGeneration.from_pretrained(written["whisper"]).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(written["whisper"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(written["whisper"])

    def write(sound, **options):
        features = extractor(sound, sampling_rate=RATE, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(features, do_sample=False, num_beams=1, **options)[0]
        return tokenizer.decode(tokens, skip_special_tokens=True).strip()

    return write


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("limit", [1, 24])
def test_t5(load, written, transformers_t5, engine, limit):
    model = load(engine, written["t5"])
    alone = [model.run(text, {"max_new_tokens": limit}).value for text in TEXTS]
    assert [each["token_ids"] for each in alone] == [transformers_t5(text, limit) for text in TEXTS]
    assert len({tuple(each["token_ids"]) for each in alone}) > 1
    assert model.run(TEXTS, {"max_new_tokens": limit}).value == alone
    for each in alone:
        assert (each["finish_reason"] == "stop") == (len(each["token_ids"]) < limit)


def test_a_prefix_is_put_before_a_text(load, written):
    model = load("cpu", written["t5"])
    whole = model.run("summarize: a long story", {"max_new_tokens": 8})
    assert model.run("a long story", {"max_new_tokens": 8, "prefix": "summarization"}).value == whole.value
    assert model.run("a long story", {"max_new_tokens": 8, "prefix": "summarize: "}).value == whole.value
    assert whole.counts["prompt_tokens"] == len("summarize: a long story") + 1
    assert 1 <= whole.counts["completion_tokens"] <= 8


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("params", [{}, {"language": "fr"}, {"language": "en", "task": "translate"}])
def test_whisper(load, written, transformers_whisper, engine, params):
    model = load(engine, written["whisper"])
    sounds = [tone(1.3, 440), tone(0.4, 150, 1), tone(2.0, 900, 2)]
    said = {"task": "transcribe", **params}  # without a task transformers leaves out the token that says so
    expected = [transformers_whisper(sound, **said) for sound in sounds]
    assert len(set(expected)) > 1
    assert [each["text"] for each in model.run(sounds, params).value] == expected
    assert model.run(sounds[0], params).value == {"text": expected[0]}


def test_a_long_sound_is_cut_where_it_is_quiet(load, written):
    model = load("cpu", written["whisper"])
    sound = np.concatenate([tone(1.5, 300), np.zeros(RATE // 2, "f4"), tone(1.5, 600, 4)])
    parts = model._features.parts(sound)
    assert [round(len(part) / RATE, 1) for part in parts] == [1.8, 1.7]
    alone = [model.run(part, {"language": "en"}).value["text"] for part in parts]
    assert model.run(sound, {"language": "en"}).value["text"] == " ".join(filter(None, alone))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", ["whisper", "t5"])
def test_no_caller_gets_what_another_asked_for(load, written, engine, model_type):
    model = load(engine, written[model_type])
    if model_type == "t5":
        inputs, params = TEXTS, {"max_new_tokens": 6}
    else:
        inputs, params = [tone(1, 200 * n, n) for n in range(1, 5)], {"max_new_tokens": 6}
    expected = [model.run(each, params).value for each in inputs]
    assert mixed_up(lambda given: model.run(given, params).value, inputs, expected) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", ["whisper", "t5"])
def test_what_ran_is_told_and_samples_run(load, written, engine, model_type):
    model = load(engine, written[model_type])
    samples = model.samples()
    assert len({sample.units for sample in samples}) == len({sample.outputs for sample in samples}) == 2
    for sample in samples:
        output = model.run(sample.inputs, sample.params)
        assert output.counts["completion_tokens"] >= 1
    assert model.details["family"] == model_type
    assert model.memory_bytes > 0


@pytest.mark.parametrize(
    ("model_type", "inputs", "params", "code"),
    [
        ("t5", 5, {}, "bad-input"), ("t5", "", {}, "bad-input"), ("t5", [], {}, "bad-input"),
        ("t5", "a", {"max_new_tokens": 0}, "bad-input"), ("t5", "a", {"beams": 4}, "bad-input"),
        ("t5", "a", {"prefix": 3}, "bad-input"), ("t5", ["a"] * 65, {}, "too-large"),
        ("t5", "a" * 5000, {}, "too-large"),
        ("whisper", b"no sound", {}, "bad-input"), ("whisper", [], {}, "bad-input"),
        ("whisper", np.zeros(RATE, "f4"), {"language": "xx"}, "bad-input"),
        ("whisper", np.zeros(RATE, "f4"), {"task": "sing"}, "bad-input"),
        ("whisper", np.zeros(RATE, "f4"), {"max_new_tokens": True}, "bad-input"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(load, written, model_type, inputs, params, code):
    with pytest.raises(BackendError) as refused:
        load("cpu", written[model_type]).run(inputs, params)
    assert refused.value.code == code


def test_a_cancelled_job_ends_while_it_writes(load, written):
    looks = iter(range(100))
    with pytest.raises(BackendError) as ended:
        load("cpu", written["t5"]).run("a", {}, RunContext(cancelled=lambda: next(looks) > 5))
    assert ended.value.code == "cancelled"


def test_an_encoded_file_is_heard_as_its_samples_are(load, written):
    model = load("cpu", written["whisper"])
    assert model.run(encoded_sound(1, RATE), {"language": "en"}).value["text"] is not None
    assert model.run(encoded_sound(1, 44_100), {"language": "en"}).counts["audio_ms"] == 1000

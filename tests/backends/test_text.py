"""Text generation gives the tokens that transformers gives, on every engine, whole or taken up again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from ipfs_accel_node.backends.interface import BackendError, Prefix, RunContext
from ipfs_accel_node.backends.making import make_text_model

ENGINES = ("cpu", "openvino")
TYPES = ("llama", "gpt2", "opt")
PROMPTS = ("Once upon a time", "12 + 30 =", "日本語 🙂", " ")
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    made = {}

    def make(model_type="llama"):
        if model_type not in made:
            made[model_type] = make_text_model(tmp_path_factory.mktemp(model_type) / "model", model_type)
        return made[model_type]

    return make


@pytest.fixture(scope="session")
def reference():
    """transformers itself: the new tokens of a greedy generation."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = {}

    def generate(folder, prompt, count, **options):
        import torch

        if folder not in loaded:
            loaded[folder] = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer, model = loaded[folder]
        if isinstance(prompt, list):
            prompt = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **options
            )
        return out[0, ids.shape[1] :].tolist()

    return generate


def collect():
    """A context, and what is emitted into it."""
    chunks = []
    return RunContext(emit=lambda *chunk: chunks.append(chunk)), chunks


def cancel_after(count):
    seen = []
    return RunContext(lambda: len(seen) >= count, lambda *chunk: seen.append(chunk)), seen


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_tokens_are_those_of_transformers(load, tiny_text, reference, engine, model_type):
    folder = tiny_text(model_type)
    model = load(engine, folder)
    for prompt in (*PROMPTS, MESSAGES):
        out = model.run(prompt, {"max_new_tokens": 40}).value
        assert out["token_ids"] == reference(folder, prompt, 40)
        assert out["finish_reason"] == ("stop" if out["token_ids"][-1] == 2 else "length")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_pieces_are_the_whole_and_carry_their_places(load, tiny_text, engine):
    context, chunks = collect()
    out = load(engine, tiny_text()).run("piece by piece", {"max_new_tokens": 60, "ignore_eos": True}, context)
    assert [token for _, ids, _ in chunks for token in ids] == out.value["token_ids"]
    assert "".join(text for *_, text in chunks) == out.value["generated_text"]
    place = 0
    for offset, ids, _ in chunks:
        assert offset == place
        place += len(ids)
    assert out.counts == {"prompt_tokens": 14, "output_tokens": 60}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cut", [1, 7, 39, 40])
def test_an_output_taken_up_again_is_the_undisturbed_one(load, tiny_text, engine, cut):
    model, asked = load(engine, tiny_text()), {"max_new_tokens": 40, "ignore_eos": True}
    context, chunks = collect()
    whole = model.run("a story", asked, context).value
    before = "".join(text for *_, text in chunks[:cut])
    again, rest = collect()
    prefix = Prefix(tuple(whole["token_ids"][:cut]), len(before))
    resumed = model.run("a story", asked, replace(again, prefix=prefix))
    assert resumed.value == whole
    assert before + "".join(text for *_, text in rest) == whole["generated_text"]
    assert [offset for offset, ids, _ in rest if ids] == list(range(cut, 40))
    assert resumed.counts["output_tokens"] == 40 - cut


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("ids", "code"),
    [((70, -1), "bad-input"), ((70, 259), "bad-input"), ((2**31 - 1,), "bad-input"), ((70,) * 513, "too-large")],
)
def test_an_output_to_go_on_from_that_cannot_be_this_models_is_refused(load, tiny_text, engine, ids, code):
    model = load(engine, tiny_text())
    with pytest.raises(BackendError) as failed:
        model.run("a", {"max_new_tokens": 4}, RunContext(prefix=Prefix(ids)))
    assert failed.value.code == code


def test_a_long_text_is_given_out_in_pieces_that_fit_a_frame(load, tiny_text, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.backends.families.text._LONGEST_PIECE", 4)
    model, asked = load("cpu", tiny_text()), {"max_new_tokens": 12, "ignore_eos": True}
    whole, (context, chunks) = model.run("pieces", asked).value, collect()
    model.run("pieces", asked, replace(context, prefix=Prefix(tuple(whole["token_ids"][:10]))))
    assert "".join(text for *_, text in chunks) == whole["generated_text"]
    assert max(len(text) for *_, text in chunks) == 4
    assert [(offset, len(ids)) for offset, ids, _ in chunks] == [(10, 1), (11, 0), (11, 0), (11, 1)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stop_text_ends_the_output_and_is_left_out(load, tiny_text, engine):
    model = load(engine, tiny_text())
    text = model.run("stop", {"max_new_tokens": 40, "ignore_eos": True}).value["generated_text"]
    stop = text[9:12]
    context, chunks = collect()
    out = model.run("stop", {"max_new_tokens": 40, "ignore_eos": True, "stop": [stop]}, context).value
    assert out["generated_text"] == text[: text.index(stop)]
    assert out["finish_reason"] == "stop"
    assert "".join(each for *_, each in chunks) == out["generated_text"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_makes_drawing_repeatable(load, tiny_text, engine):
    model = load(engine, tiny_text())
    asked = {"max_new_tokens": 30, "temperature": 1.0, "top_p": 0.95, "top_k": 50, "ignore_eos": True}
    first, same, other = (model.run("draw", {**asked, "seed": seed}).value for seed in (3, 3, 4))
    assert first == same
    assert first["seed"] == 3
    assert first["token_ids"] != other["token_ids"]
    assert (
        model.run("draw", {**asked, "top_k": 1, "seed": 9}).value["token_ids"]
        == (model.run("draw", {"max_new_tokens": 30, "ignore_eos": True}).value["token_ids"])
    )


def test_drawn_tokens_too_are_taken_up_again_with_torch(load, tiny_text):
    model, asked = load("cpu", tiny_text()), {"max_new_tokens": 30, "temperature": 1.0, "seed": 5, "ignore_eos": True}
    whole = model.run("draw", asked).value
    prefix = Prefix(tuple(whole["token_ids"][:11]))
    assert model.run("draw", asked, RunContext(prefix=prefix)).value == whole


@pytest.mark.parametrize("engine", ENGINES)
def test_cancelling_stops_between_tokens_and_leaves_the_model_usable(load, tiny_text, reference, engine):
    model = load(engine, tiny_text())
    context, seen = cancel_after(5)
    with pytest.raises(BackendError) as failed:
        model.run("a", {"max_new_tokens": 300, "ignore_eos": True}, context)
    assert (failed.value.code, len(seen)) == ("cancelled", 5)
    assert model.run("a", {"max_new_tokens": 8}).value["token_ids"] == reference(tiny_text(), "a", 8)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_models_own_repetition_penalty_holds(load, tiny_text, tmp_path, reference, engine):
    folder = shutil.copytree(tiny_text(), tmp_path / "model")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 1.5}))
    out = load(engine, folder).run("again and again", {"max_new_tokens": 30}).value["token_ids"]
    assert out == reference(folder, "again and again", 30)
    assert out != reference(tiny_text(), "again and again", 30)


@pytest.mark.parametrize(
    ("inputs", "params", "code"),
    [
        ("", {}, "bad-input"),
        ([], {}, "bad-input"),
        (5, {}, "bad-input"),
        ([{"role": "user"}], {}, "bad-input"),
        ([{"role": "user", "content": 1}], {}, "bad-input"),
        ("a" * 600, {}, "too-large"),
        ("a" * 10_000_000, {}, "too-large"),
        ("a", {"max_new_tokens": 0}, "bad-input"),
        ("a", {"max_new_tokens": True}, "bad-input"),
        ("a", {"temperature": -1}, "bad-input"),
        ("a", {"temperature": float("nan")}, "bad-input"),
        ("a", {"top_p": 0}, "bad-input"),
        ("a", {"top_k": 1.5}, "bad-input"),
        ("a", {"stop": [""]}, "bad-input"),
        ("a", {"stop": ["x"] * 17}, "bad-input"),
        ("a", {"seed": "x"}, "bad-input"),
        ("a", {"beams": 4}, "bad-input"),
    ],
)
def test_what_does_not_fit_is_told(load, tiny_text, inputs, params, code):
    with pytest.raises(BackendError) as failed:
        load("cpu", tiny_text()).run(inputs, params)
    assert failed.value.code == code
    assert len(failed.value.message) < 500


def test_a_plain_text_is_a_message_where_that_is_asked_for(load, tiny_text, reference):
    model = load("cpu", tiny_text())
    asked = model.run("hello", {"max_new_tokens": 10, "chat": True}).value
    assert asked["token_ids"] == reference(tiny_text(), MESSAGES, 10)


def test_without_a_chat_template_messages_are_refused_and_texts_are_taken(load, tiny_text, tmp_path):
    folder = shutil.copytree(tiny_text(), tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = load("cpu", folder)
    with pytest.raises(BackendError, match="no chat template"):
        model.run(MESSAGES, {})
    assert model.run("a", {"max_new_tokens": 2, "chat": True}).value["prompt_tokens"] == 1


@pytest.mark.parametrize("context", [40, 512, 8192])
def test_what_is_measured_fits_the_model(load, tiny_text, tmp_path, context):
    folder = shutil.copytree(tiny_text(), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": context}))
    model = load("cpu", folder)
    samples = model.samples()
    assert len({(each.units, each.outputs) for each in samples}) == 3
    for each in samples:
        assert len(each.inputs.encode()) == each.units
        assert model.run(each.inputs, each.params).counts["output_tokens"] == each.outputs

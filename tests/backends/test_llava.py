"""LLaVA and LLaVA-Next: token for token what transformers writes, on each engine, whatever the image's shape."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ipfs_accel_node.backends.families.llava_next import MOST_TILES, best_grid
from ipfs_accel_node.backends.families.pictured import MAX_IMAGES
from ipfs_accel_node.backends.families.samples import encoded_image
from ipfs_accel_node.backends.families.sampling import next_token
from ipfs_accel_node.backends.families.text_params import TextParams
from ipfs_accel_node.backends.interface import BackendError, LooksAhead, Prefix, RunContext
from ipfs_accel_node.backends.loading import inspect
from ipfs_accel_node.backends.making_llava import LlavaShape, TextShape, make_llava
from ipfs_accel_node.backends.making_media import make_media_model
from PIL import Image

from .conftest import ENGINES, mixed_up

TYPES = ("llava", "llava_next")
CLASSES = {"llava": "LlavaForConditionalGeneration", "llava_next": "LlavaNextForConditionalGeneration"}
#: Height and width: square, tall, wide, very wide, tiny, and as large as all tiles.
SIZES = [(60, 60), (100, 50), (33, 200), (20, 400), (5, 7), (112, 112), (301, 90)]
NEW = 12


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def shown(*images, text="What is it?"):
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture(scope="session")
def seeing(tmp_path_factory):
    return {each: make_media_model(tmp_path_factory.mktemp(each) / "model", each, seed=1) for each in TYPES}


@pytest.fixture(scope="session")
def reference(seeing):
    """transformers itself: (prompt tokens, new tokens) of messages with images in them."""
    import torch
    import transformers

    loaded = {}

    def write(model_type, messages, folder=None, **options):
        folder = folder or seeing[model_type]
        if folder not in loaded:
            model = getattr(transformers, CLASSES[model_type]).from_pretrained(folder).eval()
            loaded[folder] = model, transformers.AutoProcessor.from_pretrained(folder, use_fast=False)
        model, processor = loaded[folder]
        parts = [part for message in messages for part in message["content"]]
        images = [Image.fromarray(part["image"]) for part in parts if part["type"] == "image"]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        given = processor(images=images or None, text=text, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**given, **{"max_new_tokens": NEW, "do_sample": False, **options})[0].tolist()
        prompt = given.input_ids.shape[1]
        return prompt, out[prompt:]

    return write


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_tokens_are_those_of_transformers(load, seeing, reference, engine, model_type):
    model = load(engine, seeing[model_type])
    written = []
    for seed, size in enumerate(SIZES):
        out = model.run(shown(picture(seed, *size)), {"max_new_tokens": NEW})
        found = out.value["prompt_tokens"], out.value["token_ids"]
        assert found == reference(model_type, shown(picture(seed, *size))), size
        assert out.counts["images"] == 1
        assert out.counts["output_tokens"] == len(out.value["token_ids"])
        assert set(out.timings) == {"preprocess_s", "first_token_s", "compute_s", "postprocess_s"}
        written.append(tuple(found[1]))
    assert len(set(written)) > len(SIZES) // 2, "images that give the same prove nothing"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_several_images_and_several_messages(load, seeing, reference, engine, model_type):
    first, second = picture(1, 70, 150), picture(2, 90, 40)
    messages = [
        *shown(first, second, text="Compare."),
        {"role": "assistant", "content": [{"type": "text", "text": "They differ."}]},
        *shown(second, text="And this?"),
    ]
    model = load(engine, seeing[model_type])
    found = model.run(messages, {"max_new_tokens": NEW}).value
    assert (found["prompt_tokens"], found["token_ids"]) == reference(model_type, messages)
    alone = model.run([{"role": "user", "content": "No picture."}], {"max_new_tokens": NEW}).value
    assert alone["token_ids"] == reference(model_type, shown(text="No picture."))[1]
    penal = {"max_new_tokens": NEW, "repetition_penalty": 1.3}
    assert model.run(messages, penal).value["token_ids"] == reference(model_type, messages, **penal)[1]


def test_every_form_that_the_pipeline_takes(load, seeing):
    model = load("cpu", seeing["llava_next"])
    image, params = picture(3, 50, 90), {"max_new_tokens": 6}
    expected = model.run(shown(image), params).value
    given = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    apart = {"text": [{"role": "user", "content": given}], "images": png(image)}
    whole = {"text": "USER: <image>\nWhat is it? ASSISTANT:", "images": [image]}
    assert model.run(shown(png(image)), params).value == expected
    assert model.run(apart, params).value == expected
    assert model.run(whole, params).value == expected
    assert model.run({"text": "What is it?", "images": []}, {**params, "chat": True}).counts["images"] == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_no_caller_gets_what_another_asked_for(load, seeing, engine, model_type):
    model = load(engine, seeing[model_type])
    inputs = [shown(picture(seed, 40 + 30 * seed, 120 - 20 * seed)) for seed in range(4)]
    params = {"max_new_tokens": NEW, "ignore_eos": True}
    expected = [model.run(each, params).value for each in inputs]
    assert len({str(each["token_ids"]) for each in expected}) == 4
    assert mixed_up(lambda given: model.run(given, params).value, inputs, expected) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_one_is_seen_while_another_is_written(load, seeing, engine):
    model = load(engine, seeing["llava"])
    first, second = shown(picture(5, 40, 60)), shown(picture(6, 60, 40))
    params = {"max_new_tokens": NEW, "ignore_eos": True}
    alone = [model.run(each, params).value for each in (first, second)]
    between = []

    def emit(offset, _ids, _text):
        if offset in (0, 5):
            between.append(model.run(second, params).value)

    assert model.run(first, params, RunContext(emit=emit)).value == alone[0]
    assert between == [alone[1]] * 2


@pytest.mark.parametrize("engine", ENGINES)
def test_the_next_is_seen_ahead(load, seeing, engine):
    model = load(engine, seeing["llava_next"])
    first, second = shown(picture(5, 40, 160)), shown(picture(6, 60, 40), picture(7, 90, 90))
    params = {"max_new_tokens": NEW, "ignore_eos": True}
    alone = [model.run(each, params) for each in (first, second)]
    ahead = []

    def emit(offset, _ids, _text):
        if offset == 3:
            ahead.append(model.look_ahead(second, params))

    assert isinstance(model, LooksAhead)
    assert model.run(first, params, RunContext(emit=emit)).value == alone[0].value
    after = model.run(ahead[0], params)
    assert (after.value, after.counts) == (alone[1].value, alone[1].counts)
    assert after.timings["ahead_s"] > 0
    assert "ahead_s" not in alone[1].timings


@pytest.mark.parametrize("engine", ENGINES)
def test_an_output_is_streamed_and_taken_up_again(load, seeing, engine):
    model = load(engine, seeing["llava_next"])
    inputs = shown(picture(7, 80, 44))
    for params in ({"max_new_tokens": NEW, "ignore_eos": True}, {"temperature": 1.0, "seed": 5, "max_new_tokens": NEW}):
        chunks = []
        whole = model.run(inputs, params, RunContext(emit=lambda *chunk, to=chunks: to.append(chunk))).value
        assert [token for _, ids, _ in chunks for token in ids] == whole["token_ids"]
        assert "".join(text for _, _, text in chunks) == whole["generated_text"]
        half = tuple(whole["token_ids"][:5])
        rest = model.run(inputs, params, RunContext(prefix=Prefix(half, 0)))
        assert rest.value["token_ids"] == whole["token_ids"]
        assert rest.counts["output_tokens"] == len(whole["token_ids"]) - 5


def test_what_is_drawn_is_the_same_on_each_engine(load, seeing):
    inputs, params = shown(picture(8, 50, 50)), {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "max_new_tokens": NEW}
    drawn = [
        load(engine, seeing["llava"]).run(inputs, {**params, "seed": seed}).value["token_ids"]
        for engine in ENGINES
        for seed in (1, 2)
    ]
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]


def test_drawing_is_from_what_transformers_draws_from():
    import torch
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(0).normal(0, 3, 50).astype(np.float32)
    scores = torch.from_numpy(logits.copy())[None]
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        scores = warper(None, scores)
    chances = scores.softmax(-1)[0].numpy()
    drawn = [
        next_token(logits.copy(), [0], TextParams(temperature=0.7, top_k=20, top_p=0.8, seed=seed))
        for seed in range(3000)
    ]
    counted = np.bincount(drawn, minlength=50) / len(drawn)
    assert set(np.flatnonzero(counted)) <= set(np.flatnonzero(chances))
    assert np.abs(counted - chances).max() < 0.04


def test_tiles_are_those_of_the_processor(load, seeing):
    from transformers import LlavaNextImageProcessor

    processor = LlavaNextImageProcessor.from_pretrained(seeing["llava_next"])
    model = load("cpu", seeing["llava_next"])
    for seed, size in enumerate([*SIZES, (57, 56), (56, 113), (4, 60), (500, 499)]):
        image = Image.fromarray(picture(seed, *size))
        expected = processor(image, return_tensors="np").pixel_values[0]
        assert np.array_equal(model.tiles_of(image).tiles, expected), size
    assert best_grid((1, 30_000), [(56, 112), (112, 56)]) is None


def test_a_mistral_may_write(load, seeing, reference, tmp_path):
    import torch

    torch.manual_seed(3)
    make_llava(tmp_path, LlavaShape(text=TextShape(num_key_value_heads=1)), "mistral").save_pretrained(tmp_path)
    messages = shown(picture(9, 50, 80))
    found = load("cpu", tmp_path).run(messages, {"max_new_tokens": NEW}).value
    assert (found["prompt_tokens"], found["token_ids"]) == reference("llava", messages, tmp_path)


@pytest.mark.parametrize(
    ("inputs", "params", "code"),
    [
        (5, {}, "bad-input"), ([], {}, "bad-input"), (shown(b"no image"), {}, "bad-input"),
        (shown("http://host/cat.png"), {}, "bad-input"), ([{"role": "user"}], {}, "bad-input"),
        ([{"role": "user", "content": [{"type": "image", "url": "http://host/"}]}], {}, "bad-input"),
        ([{"role": "user", "content": [{"type": "image"}]}], {}, "bad-input"),
        ([{"role": "user", "content": [{"type": "video"}]}], {}, "bad-input"),
        (shown(text="an <image> that is not there"), {}, "bad-input"),
        (shown(picture(0, 9, 9), text="one <image> too many"), {}, "bad-input"),
        ({"text": shown(), "images": [picture(0, 9, 9)]}, {}, "bad-input"),
        ({"text": "no place", "images": [picture(0, 9, 9)]}, {}, "bad-input"),
        ({"images": [picture(0, 9, 9)]}, {}, "bad-input"), (shown(picture(0, 1, 30_000)), {}, "bad-input"),
        (shown(*[encoded_image()] * (MAX_IMAGES + 1)), {}, "too-large"),
        (shown(*[picture(0, 112, 112)] * 12), {}, "too-large"), (shown(text="a" * 2000), {}, "too-large"),
        (shown(np.zeros((9000, 9000), np.uint8)), {}, "too-large"), (shown(text="a"), {"beams": 2}, "bad-input"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(load, seeing, inputs, params, code):
    with pytest.raises(BackendError) as refused:
        load("cpu", seeing["llava_next"]).run(inputs, params)
    assert refused.value.code == code


@pytest.mark.parametrize("stop_at", range(4))
def test_a_cancelled_job_ends(load, seeing, stop_at):
    looks = iter(range(100))
    with pytest.raises(BackendError) as ended:
        load("cpu", seeing["llava"]).run(
            shown(picture(0, 40, 40)), {"ignore_eos": True}, RunContext(cancelled=lambda: next(looks) >= stop_at)
        )
    assert ended.value.code == "cancelled"


CHANGES = {
    "more layers": {"text_config": {"num_hidden_layers": 9}},
    "a wider text": {"text_config": {"hidden_size": 128}},
    "more words": {"text_config": {"vocab_size": 1 << 20}},
    "more patches": {"vision_config": {"patch_size": 1}},
    "a larger image": {"vision_config": {"image_size": 1 << 16}},
    "more that sees": {"vision_config": {"num_hidden_layers": 99}},
    "no token for an image": {"image_token_index": 5000},
    "no such selection": {"vision_feature_select_strategy": "full"},
    "grids of other tiles": {"image_grid_pinpoints": [[57, 100]]},
    "too many tiles": {"image_grid_pinpoints": [[56, 56 * (MOST_TILES + 1)]]},
    "another that writes": {"text_config": {"model_type": "gpt2"}},
    "another that sees": {"vision_config": {"model_type": "siglip_vision_model"}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_contradicts_itself_is_refused(load, seeing, tmp_path, change):
    folder = shutil.copytree(seeing["llava_next"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for name, value in CHANGES[change].items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError) as refused:
        load("cpu", folder)
    assert refused.value.code == ("unsupported-task" if "another" in change else "not-a-model")


def test_a_published_folder_says_less():
    """Configurations leave out what transformers takes for granted."""
    from ipfs_accel_node.backends.shapes import part_of

    config = {
        "text_config": {"model_type": "mistral", "vocab_size": 32_064},
        "vision_config": {"model_type": "clip_vision_model"},
    }
    text = part_of("llava_next", config, "text_config")
    assert (text["hidden_size"], text["num_hidden_layers"], text["intermediate_size"]) == (4096, 32, 14_336)
    assert part_of("llava_next", config, "vision_config")["image_size"] == 224


def test_a_template_in_a_file_of_json_and_around_generations(load, seeing, tmp_path):
    """As llava-1.5's is: marks what an assistant said, for training."""
    folder = shutil.copytree(seeing["llava"], tmp_path / "model")
    source = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    marked = "{% generation %}" + source + "{% endgeneration %}"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": marked}))
    inputs, params = shown(picture(1, 30, 40)), {"max_new_tokens": 4}
    assert load("cpu", folder).run(inputs, params).value == load("cpu", seeing["llava"]).run(inputs, params).value


@pytest.mark.parametrize("engine", ENGINES)
def test_what_ran_is_told_and_samples_run(load, seeing, engine):
    model = load(engine, seeing["llava_next"])
    samples = model.samples()
    assert len({sample.units for sample in samples}) == len({sample.outputs for sample in samples}) == 2
    for sample in samples:
        assert model.run(sample.inputs, sample.params).counts["output_tokens"] == sample.outputs
    assert inspect(seeing["llava_next"]).task == model.task == "image-text-to-text"
    assert (model.details["family"], model.details["image_side"]) == ("llava_next", 56)
    assert model.memory_bytes > 0


def test_openvino_needs_no_torch(load, seeing, cache):
    load("openvino", seeing["llava"])  # so that it is converted
    script = f"""
import sys
import numpy as np
from pathlib import Path
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.interface import LoadOptions
options = LoadOptions(cache=Path({str(cache)!r}), key={str(seeing["llava"])!r}, threads=1)
model = registry.create("openvino").load(Path({str(seeing["llava"])!r}), options)
image = np.zeros((30, 40, 3), np.uint8)
assert model.run({{"text": "<image>What?", "images": image}}, {{"max_new_tokens": 2}}).value["token_ids"]
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-P", "-c", script], timeout=120, check=False).returncode == 0

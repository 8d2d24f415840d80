"""Pictures, sounds and films: each family on each engine agrees with transformers run apart, alone and together."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from ipfs_accel_node.backends import onednn, registry
from ipfs_accel_node.backends.families.samples import encoded_image, encoded_sound, frames_of_noise
from ipfs_accel_node.backends.interface import BackendError, LoadOptions, RunContext
from ipfs_accel_node.backends.making_media import make_media_model
from PIL import Image

from .conftest import ENGINES, mixed_up

TYPES = ("clip", "clap", "wav2vec2", "videomae", "xclip")
LABELS = ["a cat", "a very long label about a dog in the rain", "x"]
TOLERANCE = 1e-4


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def tone(seconds, rate, hertz=440.0, seed=0):
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * hertz * time) + np.random.default_rng(seed).normal(0, 0.05, time.size)).astype(
        "f4"
    )


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """The folder of a tiny model of each type, made once."""
    made = {}

    def folder(model_type):
        if model_type not in made:
            made[model_type] = make_media_model(tmp_path_factory.mktemp(model_type) / "model", model_type)
        return made[model_type]

    return folder


def fits(found, expected):
    """Scores that pipelines give, by label."""
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    scores = {each["label"]: each["score"] for each in found}
    assert scores == pytest.approx(expected, abs=TOLERANCE)


# --- what transformers says


def clip_scores(folder, image, template="This is a photo of {}."):
    import torch
    from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = tokenizer([template.format(each) for each in LABELS], padding=True, return_tensors="pt")
    pixels = CLIPImageProcessor.from_pretrained(folder)(image, return_tensors="pt")
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, **pixels).logits_per_image
    return dict(zip(LABELS, logits[0].softmax(-1).tolist(), strict=True))


def clap_scores(folder, sound):
    import torch
    from transformers import ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    texts = tokenizer([f"This is a sound of {each}." for each in LABELS], padding=True, return_tensors="pt")
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    features = extractor(sound, sampling_rate=48_000, return_tensors="pt").input_features
    model = ClapModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, input_features=features)
    return dict(zip(LABELS, out.logits_per_audio[0].softmax(-1).tolist(), strict=True))


def wav2vec2_text(folder, sound):
    import torch
    from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

    processor = Wav2Vec2Processor.from_pretrained(folder)
    values = processor(sound, sampling_rate=16_000, return_tensors="pt").input_values
    model = Wav2Vec2ForCTC.from_pretrained(folder).eval()
    with torch.no_grad():
        return processor.batch_decode(model(values).logits.argmax(-1))[0]


def videomae_scores(folder, frames):
    import torch
    from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

    pixels = VideoMAEImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    model = VideoMAEForVideoClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        scores = model(**pixels).logits[0].softmax(-1)
    return {model.config.id2label[place]: float(score) for place, score in enumerate(scores)}


def xclip_scores(folder, frames):
    import torch
    from transformers import PreTrainedTokenizerFast, VideoMAEImageProcessor, XCLIPModel

    texts = PreTrainedTokenizerFast.from_pretrained(folder)(LABELS, padding=True, return_tensors="pt")
    pixels = VideoMAEImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")
    model = XCLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, **pixels)
    return dict(zip(LABELS, out.logits_per_video[0].softmax(-1).tolist(), strict=True))


# --- agreement


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [(240, 320), (50, 33), (32, 32), (20, 90)], ids=str)
def test_clip(load, media, engine, size):
    image = noise(1, *size, 3)
    model = load(engine, media("clip"))
    found = model.run(image, {"candidate_labels": LABELS}).value
    fits(found, clip_scores(media("clip"), Image.fromarray(image)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [0.5, 3.0, 10.0])
def test_clap(load, media, engine, seconds):
    sound = tone(seconds, 48_000)
    found = load(engine, media("clap")).run(sound, {"candidate_labels": LABELS}).value
    fits(found, clap_scores(media("clap"), sound))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [0.1, 1.0, 2.777])
def test_wav2vec2(load, media, engine, seconds):
    sound = tone(seconds, 16_000)
    found = load(engine, media("wav2vec2")).run(sound, {}).value
    assert found == {"text": wav2vec2_text(media("wav2vec2"), sound)}
    assert len(found["text"]) > 1, "a text that says nothing proves nothing"


@pytest.mark.parametrize("engine", ENGINES)
def test_videomae(load, media, engine):
    frames = noise(2, 8, 48, 64, 3)
    found = load(engine, media("videomae")).run(frames, {"top_k": 7}).value
    fits(found, videomae_scores(media("videomae"), frames))
    assert load(engine, media("videomae")).run(frames, {}).value == found[:5]


@pytest.mark.parametrize("engine", ENGINES)
def test_xclip(load, media, engine):
    frames = noise(3, 8, 48, 64, 3)
    found = load(engine, media("xclip")).run(frames, {"candidate_labels": LABELS}).value
    fits(found, xclip_scores(media("xclip"), frames))


INPUTS = {
    "clip": ([noise(seed, 40 + seed, 50, 3) for seed in range(3)], {"candidate_labels": LABELS}),
    "clap": ([tone(0.4 + seed, 48_000, seed=seed) for seed in range(3)], {"candidate_labels": LABELS}),
    "wav2vec2": ([tone(0.4 + seed, 16_000, 200 + 90 * seed, seed) for seed in range(3)], {}),
    "videomae": ([noise(seed, 8 + seed, 40, 40, 3) for seed in range(3)], {}),
    "xclip": ([noise(seed, 8 + seed, 40, 40, 3) for seed in range(3)], {"candidate_labels": LABELS}),
}


def together(model_type, inputs):
    return {"videos": inputs} if model_type in ("videomae", "xclip") else inputs


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_several_at_once_are_what_each_is_alone(load, media, engine, model_type):
    inputs, params = INPUTS[model_type]
    model = load(engine, media(model_type))
    alone = [model.run(each, params).value for each in inputs]
    assert len({str(each) for each in alone}) == len(alone), "inputs that give the same prove nothing"
    for one, same in zip(alone, model.run(together(model_type, inputs), params).value, strict=True):
        if isinstance(one, dict):
            assert one == same
        else:
            fits(same, {each["label"]: each["score"] for each in one})


@pytest.mark.parametrize("model_type", TYPES)
def test_no_caller_gets_what_another_asked_for(load, media, model_type):
    inputs, params = INPUTS[model_type]
    model = load("openvino", media(model_type))
    expected = [str(model.run(each, params).value) for each in inputs]
    lock = threading.Lock()

    def run(given):
        with lock:  # a model is run from one thread at a time
            return str(model.run(given, params).value)

    assert mixed_up(run, inputs[:3], expected, times=5) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model_type", TYPES)
def test_what_ran_is_told_and_samples_run(load, media, engine, model_type):
    model = load(engine, media(model_type))
    assert model.details["family"] == model_type
    assert "cpu" in model.details["device"].lower()
    assert model.memory_bytes > 0
    samples = model.samples()
    assert samples[0].units < samples[1].units
    for sample in samples:
        output = model.run(sample.inputs, sample.params)
        assert set(output.timings) == {"preprocess_s", "compute_s", "postprocess_s"}
        assert all(count > 0 for count in output.counts.values())


# --- files, and what is no file


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_images_of_every_mode(load, media, kind, mode):
    image = Image.fromarray(noise(4, 40, 40, 3))
    image = Image.fromarray(noise(4, 40, 40).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    try:
        data = encoded(image, kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    found = load("cpu", media("clip")).run(data, {"candidate_labels": LABELS}).value
    assert len(found) == len(LABELS)


def test_an_image_is_turned_as_its_camera_was_held(load, media):
    upright = Image.fromarray(noise(5, 40, 60, 3).repeat(4, 0).repeat(4, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    model = load("cpu", media("clip"))
    params = {"candidate_labels": LABELS}
    assert model.run(turned, params).value == model.run(encoded(upright, "PNG"), params).value


def test_sound_files_of_other_rates_and_channels(load, media):
    import soundfile
    import soxr

    high = tone(2.0, 44_100)
    file = io.BytesIO()
    soundfile.write(file, np.stack([high, high], axis=1), 44_100, format="FLAC", subtype="PCM_24")
    model = load("cpu", media("wav2vec2"))
    expected = wav2vec2_text(media("wav2vec2"), soxr.resample(high, 44_100, 16_000, quality="HQ"))
    assert model.run(file.getvalue(), {}).value["text"] == expected
    assert model.run({"array": high, "sampling_rate": 44_100}, {}).value["text"] == expected
    assert model.run({"array": np.stack([high, high]), "sampling_rate": 44_100}, {}).value["text"] == expected


def test_a_video_file_gives_its_frames_evenly_spread(load, media):
    import av

    frames = frames_of_noise(30)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.bit_rate = 20_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    model = load("cpu", media("videomae"))
    found = model.run(file.getvalue(), {}).value
    fits(found, {each["label"]: pytest.approx(each["score"], abs=0.05) for each in model.run(frames, {}).value})


BAD = {
    "clip": [
        (b"", "bad-input"), (b"no image", "bad-input"), (encoded_image()[:200], "bad-input"), (5, "bad-input"),
        (np.zeros((4, 4, 2), np.uint8), "bad-input"), (np.zeros((4, 4, 3), np.float32), "bad-input"),
        ([], "bad-input"), ([encoded_image()] * 65, "too-large"),
        (encoded(Image.new("1", (30_000, 3_000)), "PNG"), "too-large"),
    ],
    "clap": [(b"no sound", "bad-input"), ("text", "bad-input"), (np.zeros(0, np.float32), "bad-input")],
    "wav2vec2": [
        (b"RIFF", "bad-input"), (np.zeros(3, np.float32), "bad-input"), (np.full(9000, np.nan), "bad-input"),
        ({"array": [0.0]}, "bad-input"), ({"array": [0.0], "sampling_rate": 5}, "bad-input"),
        (np.zeros(16_000 * 121, np.float32), "too-large"), (encoded_sound(130, 8000), "too-large"),
    ],
    "videomae": [
        (b"no video", "bad-input"), (np.zeros((0, 4, 4, 3), np.uint8), "bad-input"), ({"videos": []}, "bad-input"),
        (encoded_sound(1, 8000), "bad-input"), ([b"no image"], "bad-input"),
    ],
    "xclip": [(None, "bad-input"), ({"video": 1}, "bad-input")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("model_type", "inputs", "code"),
    [
        pytest.param(kind, *case, id=f"{kind}-{place}")
        for kind, cases in BAD.items()
        for place, case in enumerate(cases)
    ],
)
def test_what_is_no_input_is_told(load, media, model_type, inputs, code):
    params = {"candidate_labels": LABELS} if model_type in ("clip", "clap", "xclip") else {}
    with pytest.raises(BackendError) as refused:
        load("cpu", media(model_type)).run(inputs, params)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "params",
    [{}, {"candidate_labels": []}, {"candidate_labels": [""]}, {"candidate_labels": [1]},
     {"candidate_labels": ["a"], "hypothesis_template": "no place"}, {"candidate_labels": ["a"], "other": 1}],
    ids=str,
)  # fmt: skip
def test_labels_that_are_none_are_told(load, media, params):
    with pytest.raises(BackendError, match="bad-input"):
        load("cpu", media("clip")).run(encoded_image(), params)


def test_labels_may_be_one_text_and_templates_are_heeded(load, media):
    model, image = load("cpu", media("clip")), noise(6, 40, 40, 3)
    found = model.run(image, {"candidate_labels": ", ".join(LABELS), "hypothesis_template": "a drawing of {}"}).value
    fits(found, clip_scores(media("clip"), Image.fromarray(image), "a drawing of {}"))


@pytest.mark.parametrize("model_type", TYPES)
def test_a_cancelled_job_ends(load, media, model_type):
    inputs, params = INPUTS[model_type]
    with pytest.raises(BackendError, match="cancelled"):
        load("cpu", media(model_type)).run(inputs[0], params, RunContext(cancelled=lambda: True))


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("change", ["layers", "width", "processor", "weights"])
def test_folders_that_do_not_fit_together_are_refused(media, load, tmp_path, model_type, change):
    import json
    import shutil

    folder = shutil.copytree(media(model_type), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    part = config.get("text_config", config)
    if change == "layers":
        part["num_hidden_layers"] = 1_000_000
    elif change == "width":
        part["hidden_size"] = 1 << 20
    elif change == "processor":
        (folder / "preprocessor_config.json").write_text("[]")
    else:
        (folder / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}      ")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackendError, match="not-a-model"):
        load("cpu", folder)


@pytest.mark.parametrize("model_type", TYPES)
def test_layers_that_onednn_computes_give_the_same(media, load, tmp_path, monkeypatch, model_type):
    """Whether a layer is handed over depends on how fast it is here; that must not matter."""
    plain = load("cpu", media(model_type))
    sample = plain.samples()[0]
    monkeypatch.setattr(onednn, "_is_faster", lambda _layer, _tokens: True)
    options = LoadOptions(cache=tmp_path, key="packed", threads=1)
    packed = registry.create("cpu").load(media(model_type), options)
    try:
        found, expected = (each.run(sample.inputs, sample.params, RunContext()).value for each in (packed, plain))
        if model_type == "wav2vec2":
            assert found == expected
        else:
            for one, other in zip(found, expected, strict=True):
                fits(one, {each["label"]: each["score"] for each in other})
    finally:
        packed.close()


def test_a_layer_that_onednn_has_still_tells_its_weight():
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(32, 48)
    packed = onednn._packed(layer)
    assert torch.equal(packed.weight, layer.weight)

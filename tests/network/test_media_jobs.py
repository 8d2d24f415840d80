"""Pictures, sounds and films through a node: clients give paths, bytes or arrays, and get what the model gives."""

from __future__ import annotations

import numpy as np
import pytest
from cluster import NodeProcess, run_json, run_program
from ipfs_accel_node import AccelError, AsyncClient, JobError
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.families.samples import encoded_image, encoded_sound, frames_of_noise
from ipfs_accel_node.backends.interface import LoadOptions, RunContext
from ipfs_accel_node.backends.making_media import make_media_model

LABELS = ["a cat", "a dog in the rain", "x"]
TYPES = ("clip", "clap", "wav2vec2", "videomae", "xclip", "whisper", "t5", "videomae_base", "llava_next")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {each: make_media_model(tmp_path_factory.mktemp("models") / each, each) for each in TYPES}


@pytest.fixture(scope="module")
def node(folders, tmp_path_factory):
    with NodeProcess("desk", tmp_path_factory.mktemp("desk"), "--backends", "cpu") as node:
        node.wait_ready()
        with node.client() as client:
            for name, folder in folders.items():
                client.add_model(folder, name)
        yield node


@pytest.fixture
def alone(folders, tmp_path_factory):
    """What a model gives in this process."""
    options = LoadOptions(cache=tmp_path_factory.mktemp("cache"), key="alone", threads=1)

    def run(name, inputs, **params):
        model = registry.create("cpu").load(folders[name], options)
        try:
            return model.run(inputs, params, RunContext()).value
        finally:
            model.close()

    return run


def same(found, expected):
    """In whatever order: what is nearly alike may change places from process to process."""
    scores = {each["label"]: each["score"] for each in expected}
    assert {each["label"]: each["score"] for each in found} == pytest.approx(scores, abs=1e-4)


def test_every_way_to_give_a_picture_a_sound_or_a_film(node, alone, tmp_path):
    image, sound, film = encoded_image(), encoded_sound(2.0, 16_000), frames_of_noise(20)
    (tmp_path / "a.jpg").write_bytes(image)
    (tmp_path / "a.wav").write_bytes(sound)
    with node.client() as client:
        for given in (image, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
            same(client.classify_image("clip", given, LABELS), alone("clip", image, candidate_labels=LABELS))
        several = client.classify_image("clip", [image, tmp_path / "a.jpg"], "a cat, a dog", template="{}!", timeout=60)
        expected = alone("clip", image, candidate_labels="a cat, a dog", hypothesis_template="{}!")
        assert len(several) == 2
        for each in several:
            same(each, expected)
        same(client.classify_audio("clap", tmp_path / "a.wav", LABELS), alone("clap", sound, candidate_labels=LABELS))
        assert client.transcribe("wav2vec2", sound) == alone("wav2vec2", sound)["text"]
        assert client.transcribe("wav2vec2", [sound]) == [alone("wav2vec2", sound)["text"]]
        heard = alone("whisper", sound, language="en", max_new_tokens=8)["text"]
        assert client.submit("whisper", "automatic-speech-recognition", sound, language="en",
                             max_new_tokens=8).result()["text"] == heard  # fmt: skip
        short = alone("t5", "summarize: a story", max_new_tokens=8)["generated_text"]
        assert client.summarize("t5", "a story", max_new_tokens=8) == short
        same(client.classify_video("videomae", film), alone("videomae", film))
        same(client.classify_video("xclip", film, LABELS), alone("xclip", film, candidate_labels=LABELS))


async def test_the_asynchronous_client_as_well(node, alone, tmp_path):
    image, sound, film = encoded_image(), encoded_sound(2.0, 16_000), frames_of_noise(20)
    (tmp_path / "a.jpg").write_bytes(image)
    async with AsyncClient(node.data_dir) as client:
        found = await client.classify_image("clip", tmp_path / "a.jpg", LABELS, on="desk")
        same(found, alone("clip", image, candidate_labels=LABELS))
        same(await client.classify_audio("clap", sound, LABELS), alone("clap", sound, candidate_labels=LABELS))
        assert await client.transcribe("wav2vec2", [sound, sound]) == [alone("wav2vec2", sound)["text"]] * 2
        short = alone("t5", "summarize: a story", max_new_tokens=8)["generated_text"]
        assert await client.summarize("t5", ["a story"] * 2, max_new_tokens=8) == [short] * 2
        same(await client.classify_video("videomae", film), alone("videomae", film))
        same(await client.classify_video("xclip", film, LABELS), alone("xclip", film, candidate_labels=LABELS))


def test_a_picture_is_described(node, alone, tmp_path):
    image, params = encoded_image(), {"max_new_tokens": 6}
    (tmp_path / "a.jpg").write_bytes(image)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": parts}]
    expected = alone("llava_next", messages, **params)
    with node.client() as client:
        for given in (image, tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
            assert client.describe("llava_next", given, "What is it?", **params) == expected["generated_text"]
        several = client.describe("llava_next", [image, tmp_path / "a.jpg"], "What is it?", timeout=60, **params)
        assert several == [expected["generated_text"]] * 2
        with pytest.raises(AccelError):
            client.describe("llava_next", [image], job_id=bytes(16))
        assert client.submit("llava_next", "image-text-to-text", messages, **params).result() == expected
        assert "".join(client.generate("llava_next", messages, stream=True, **params)) == expected["generated_text"]
        written = client.generate("llava_next", messages, **params)
        assert (written.token_ids, written.report["counts"]["images"]) == (expected["token_ids"], 1)
    asked = ("run", "llava_next", "--file", tmp_path / "a.jpg", "--input", "What is it?", "--param", "max_new_tokens=6")
    assert run_json(*asked, data_dir=node.data_dir)["value"] == expected
    printed = run_program(*asked, data_dir=node.data_dir)
    assert (printed.returncode, "in all" in printed.stdout) == (0, True)


def test_pictures_are_seen_while_others_are_written_about(node, alone):
    """Each of several callers at once gets what its own picture gives."""
    pictures = [np.random.default_rng(seed).integers(0, 256, (60 + 20 * seed, 100, 3), np.uint8) for seed in range(4)]
    params = {"max_new_tokens": 60, "ignore_eos": True}

    def about(picture):
        return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]}]

    expected = [alone("llava_next", about(each), **params) for each in pictures]
    assert len({each["generated_text"] for each in expected}) == 4
    with node.client() as client:
        jobs = [client.submit("llava_next", "image-text-to-text", about(each), **params) for each in pictures * 3]
        assert [job.result() for job in jobs] == expected * 3
    assert any(job.report.get("ahead_s", 0) > 0 for job in jobs)


async def test_a_picture_is_described_asynchronously(node, alone, tmp_path):
    image, film = encoded_image(), frames_of_noise(20)
    (tmp_path / "a.jpg").write_bytes(image)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}]
    expected = alone("llava_next", [{"role": "user", "content": parts}], max_new_tokens=6)["generated_text"]
    async with AsyncClient(node.data_dir) as client:
        assert await client.describe("llava_next", tmp_path / "a.jpg", "What is it?", max_new_tokens=6) == expected
        several = await client.describe("llava_next", [image] * 2, "What is it?", max_new_tokens=6)
        assert several == [expected] * 2
        vector = await (await client.submit("videomae_base", "feature-extraction", film)).result()
        assert vector == pytest.approx(alone("videomae_base", film), abs=1e-4)


def test_what_is_no_picture_is_told(node, tmp_path):
    with node.client() as client:
        with pytest.raises(AccelError) as refused:
            client.classify_image("clip", tmp_path / "none.jpg", LABELS)
        assert (refused.value.code, bool(refused.value.hint)) == ("bad-input", True)
        with (tmp_path / "large").open("wb") as file:
            file.truncate(65 << 20)
        with pytest.raises(AccelError) as refused:
            client.transcribe("wav2vec2", tmp_path / "large")
        assert refused.value.code == "too-large"
        with pytest.raises(JobError) as failed:
            client.classify_image("clip", b"no picture", LABELS)
        assert failed.value.code == "bad-input"
        with pytest.raises(JobError) as failed:
            client.transcribe("clip", encoded_image())
        assert failed.value.code == "unsupported-task"

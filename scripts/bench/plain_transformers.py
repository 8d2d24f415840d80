"""What the same inputs take with transformers as it comes, in f32: the baseline of `bench.families`.

Each function loads a folder and gives a call that does a whole job, from plain inputs to a result.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from ipfs_accel_node.backends.families.samples import encoded_image, encoded_sound, frames_of_noise, text_of

LABELS: Final = ["a cat", "rain", "a dog"]
TEXT: Final = text_of(256)
NEW: Final = 32
SPEECH_S: Final = 10
Job = Callable[[], Any]


def plain(family: str, folder: Path) -> Job:
    """The job of a family; torch's threads are the caller's to set."""
    return _JOBS[family](folder)


def _read(cls: str, folder: Path) -> Any:
    import torch
    import transformers

    return getattr(transformers, cls).from_pretrained(folder, dtype=torch.float32).eval()


def _quiet(job: Job) -> Job:
    import torch

    def run() -> Any:
        with torch.inference_mode():
            return job()

    return run


def _embedding(folder: Path) -> Job:
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), _read("AutoModel", folder)
    return _quiet(lambda: model(**tokenizer(TEXT, return_tensors="pt", truncation=True)).last_hidden_state.mean(1))


def _writing(cls: str) -> Callable[[Path], Job]:
    def open_it(folder: Path) -> Job:
        from transformers import AutoTokenizer

        tokenizer, model = AutoTokenizer.from_pretrained(folder), _read(cls, folder)
        limits = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}

        def write() -> Any:
            given = tokenizer(TEXT, return_tensors="pt")
            return model.generate(given["input_ids"], attention_mask=given["attention_mask"], **limits)

        return _quiet(write)

    return open_it


def _clip(folder: Path) -> Job:
    from PIL import Image
    from transformers import AutoTokenizer, CLIPImageProcessor

    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)
    model, picture = _read("CLIPModel", folder), encoded_image()

    def see() -> Any:
        image = processor(Image.open(io.BytesIO(picture)).convert("RGB"), return_tensors="pt")
        text = tokenizer([f"This is a photo of {label}." for label in LABELS], return_tensors="pt", padding=True)
        return model(**image, input_ids=text["input_ids"], attention_mask=text["attention_mask"]).logits_per_image

    return _quiet(see)


def _sound(seconds: int, rate: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    import soundfile

    samples, _ = soundfile.read(io.BytesIO(encoded_sound(seconds, rate)), dtype="float32")
    return np.asarray(samples, np.float32)


def _clap(folder: Path) -> Job:
    from transformers import AutoTokenizer, ClapFeatureExtractor

    tokenizer, extractor = AutoTokenizer.from_pretrained(folder), ClapFeatureExtractor.from_pretrained(folder)
    model = _read("ClapModel", folder)

    def hear() -> Any:
        sound = extractor(_sound(SPEECH_S, 48_000), sampling_rate=48_000, return_tensors="pt")
        text = tokenizer([f"This is a sound of {label}." for label in LABELS], return_tensors="pt", padding=True)
        given = {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
        return model(input_features=sound["input_features"], **given).logits_per_audio

    return _quiet(hear)


def _wav2vec2(folder: Path) -> Job:
    from transformers import Wav2Vec2FeatureExtractor

    extractor, model = Wav2Vec2FeatureExtractor.from_pretrained(folder), _read("Wav2Vec2ForCTC", folder)

    def hear() -> Any:
        given = extractor(_sound(SPEECH_S, 16_000), sampling_rate=16_000, return_tensors="pt")
        return model(given["input_values"]).logits.argmax(-1)

    return _quiet(hear)


def _whisper(folder: Path) -> Job:
    from transformers import WhisperFeatureExtractor

    extractor, model = WhisperFeatureExtractor.from_pretrained(folder), _read("WhisperForConditionalGeneration", folder)

    def hear() -> Any:
        given = extractor(_sound(SPEECH_S, 16_000), sampling_rate=16_000, return_tensors="pt")
        limits = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "language": "en"}
        return model.generate(given["input_features"], **limits)

    return _quiet(hear)


def _video(cls: str, frames: int) -> Callable[[Path], Job]:
    def open_it(folder: Path) -> Job:
        from transformers import AutoTokenizer, VideoMAEImageProcessor

        processor, model = VideoMAEImageProcessor.from_pretrained(folder), _read(cls, folder)
        shown = list(frames_of_noise(frames))
        tokenizer = AutoTokenizer.from_pretrained(folder) if cls == "XCLIPModel" else None

        def watch() -> Any:
            given = dict(processor(shown, return_tensors="pt"))
            if tokenizer is None:
                return model(**given).logits
            text = tokenizer([f"a video of {label}" for label in LABELS], return_tensors="pt", padding=True)
            given |= {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"]}
            return model(**given).logits_per_video

        return _quiet(watch)

    return open_it


_JOBS: Final[dict[str, Callable[[Path], Job]]] = {
    "bert": _embedding,
    "sentence": _embedding,
    "clip": _clip,
    "llama": _writing("AutoModelForCausalLM"),
    "opt": _writing("AutoModelForCausalLM"),
    "gpt2": _writing("AutoModelForCausalLM"),
    "t5": _writing("T5ForConditionalGeneration"),
    "whisper": _whisper,
    "wav2vec2": _wav2vec2,
    "clap": _clap,
    "videomae": _video("VideoMAEForVideoClassification", 16),
    "xclip": _video("XCLIPModel", 8),
}


def timed(job: Job) -> float:
    """Seconds."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began

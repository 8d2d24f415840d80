"""The families of models that are served, found by what a folder's `config.json` says. Imports no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Family:
    """A kind of model: what it is for, and the class of transformers that loads it."""

    name: str
    task: str
    torch_class: str
    #: Whether its parts are run one by one as `stages`; the others have an engine's own pipeline.
    staged: bool = False


SENTENCE: Final = Family("sentence", "feature-extraction", "AutoModel")
TEXT: Final = Family("text", "text-generation", "AutoModelForCausalLM")
ECHO: Final = Family("echo", "echo", "")
CLIP: Final = Family("clip", "zero-shot-image-classification", "CLIPModel", staged=True)
CLAP: Final = Family("clap", "zero-shot-audio-classification", "ClapModel", staged=True)
WAV2VEC2: Final = Family("wav2vec2", "automatic-speech-recognition", "Wav2Vec2ForCTC", staged=True)
VIDEOMAE: Final = Family("videomae", "video-classification", "VideoMAEForVideoClassification", staged=True)
#: Without a head, as it comes from pretraining.
VIDEOMAE_BASE: Final = Family("videomae_base", "feature-extraction", "VideoMAEModel", staged=True)
WHISPER: Final = Family("whisper", "automatic-speech-recognition", "WhisperForConditionalGeneration", staged=True)
T5: Final = Family("t5", "text2text-generation", "T5ForConditionalGeneration", staged=True)
XCLIP: Final = Family("xclip", "zero-shot-video-classification", "XCLIPModel", staged=True)
LLAVA: Final = Family("llava", "image-text-to-text", "LlavaForConditionalGeneration", staged=True)
LLAVA_NEXT: Final = Family("llava_next", "image-text-to-text", "LlavaNextForConditionalGeneration", staged=True)

#: model_type in config.json → its family.
_BY_TYPE: Final = {
    "bert": SENTENCE,
    "distilbert": SENTENCE,
    "mpnet": SENTENCE,
    "roberta": SENTENCE,
    "xlm-roberta": SENTENCE,
    "gpt2": TEXT,
    "llama": TEXT,
    "opt": TEXT,
    "clip": CLIP,
    "clap": CLAP,
    "wav2vec2": WAV2VEC2,
    "videomae": VIDEOMAE,
    "xclip": XCLIP,
    "whisper": WHISPER,
    "t5": T5,
    "llava": LLAVA,
    "llava_next": LLAVA_NEXT,
    "echo": ECHO,
}

FAMILIES: Final = (SENTENCE, TEXT, CLIP, CLAP, WAV2VEC2, VIDEOMAE, VIDEOMAE_BASE, XCLIP, WHISPER, T5, LLAVA, LLAVA_NEXT)
#: Every task that a model may be served for.
TASKS: Final = tuple(dict.fromkeys(family.task for family in FAMILIES))
MODEL_TYPES: Final = tuple(name for name in _BY_TYPE if name != "echo")


def family_of(config: dict[str, Any]) -> Family | None:
    """None for a model that is not served."""
    family = _BY_TYPE.get(config.get("model_type", ""))
    return VIDEOMAE_BASE if family is VIDEOMAE and not _has_labels(config) else family


def _has_labels(config: dict[str, Any]) -> bool:
    """Whether it was saved with a head that names what it sees; a folder that says nothing has one."""
    made_by = config.get("architectures")
    return not isinstance(made_by, list) or VIDEOMAE.torch_class in made_by or not made_by

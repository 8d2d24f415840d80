"""The published checkpoints of the families that have to run: their places on the hub, sizes, terms.

What stands here is what their publishers' pages say; what is not certain is `unknown`, or rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .families.known import family_of

UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Checkpoint:
    """One repository on Hugging Face.

    Attributes:
        family: as `model make` calls it.
        model_type, architecture: as its config.json has them.
        megabytes: its weights, about.
        license: as its page names it, or `unknown`.
        gated: whether its publisher lets in whom they choose.
        pickled: whether it is, or may be, published as a pickle only.
        note: what else is to be known.
    """

    family: str
    repository: str
    model_type: str
    architecture: str
    megabytes: int
    license: str = UNKNOWN
    gated: bool = False
    pickled: bool = False
    note: str = ""

    @property
    def task(self) -> str:
        """Empty for a model that this version does not run."""
        served = family_of({"model_type": self.model_type, "architectures": [self.architecture]})
        return served.task if served else ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "repository": self.repository,
            "size": self.megabytes * 1_000_000,
            "license": self.license,
            "gated": self.gated,
            "pickled": self.pickled,
            "task": self.task,
            "note": self.note,
        }


CHECKPOINTS: Final = (
    Checkpoint("bert", "prajjwal1/bert-tiny", "bert", "BertModel", 18, "mit", pickled=True),
    Checkpoint("sentence", "sentence-transformers/all-MiniLM-L6-v2", "bert", "BertModel", 91, "apache-2.0"),
    Checkpoint("clip", "openai/clip-vit-base-patch32", "clip", "CLIPModel", 605),
    Checkpoint("opt", "facebook/opt-125m", "opt", "OPTForCausalLM", 251, "other", pickled=True),
    Checkpoint("gpt2", "openai-community/gpt2", "gpt2", "GPT2LMHeadModel", 548, "mit"),
    Checkpoint("t5", "google/t5-efficient-tiny", "t5", "T5ForConditionalGeneration", 62, "apache-2.0", pickled=True),
    Checkpoint("llava", "llava-hf/llava-1.5-7b-hf", "llava", "LlavaForConditionalGeneration", 14_100, "llama2"),
    Checkpoint("llava_next", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next", "LlavaNextForConditionalGeneration",
               14_100),
    Checkpoint("whisper", "openai/whisper-tiny", "whisper", "WhisperForConditionalGeneration", 151, "apache-2.0"),
    Checkpoint("wav2vec2", "patrickvonplaten/wav2vec2-tiny-random", "wav2vec2", "Wav2Vec2ForCTC", 42, pickled=True,
               note="random weights; the hub may have it under another name"),
    Checkpoint("clap", "laion/clap-htsat-unfused", "clap", "ClapModel", 615, "apache-2.0", pickled=True),
    Checkpoint("videomae", "MCG-NJU/videomae-base", "videomae", "VideoMAEForPreTraining", 377, "cc-by-nc-4.0",
               note="without a head that names what it sees"),
    Checkpoint("xclip", "microsoft/xclip-base-patch32", "xclip", "XCLIPModel", 787, "mit", pickled=True),
)  # fmt: skip

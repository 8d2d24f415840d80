"""PyTorch on the CPU."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from .canary import Canary, Listening, some_ids, try_encoding, try_stage
from .families.known import TASKS
from .families.sentence import Encode, SentenceModel, States
from .families.staged import open_staged
from .families.text import TextModel
from .families.tokenizing import Ids
from .footprint import Footprint, give_back
from .hardware import cpu_flags, cpu_name, memory_bytes, resident_bytes
from .interface import BackendError, DeviceInfo, LoadedModel, LoadOptions
from .loading import ModelFacts, inspect, weight_files
from .onednn import prefer_onednn
from .precision import Choice, choose, of_torch_cpu
from .signs import prove, type_name
from .torch_int8 import quantize
from .torch_signs import found_in
from .torch_stages import running, stages_of
from .torch_text import generating, scoring
from .trial import answer, coded

log = logging.getLogger(__name__)

_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16"}
#: task → how many tokens go through its layers at a time, most of the time.
_TOKENS: Final = {"feature-extraction": 32, "text-generation": 1, "image-text-to-text": 1}
_MANY_TOKENS: Final = 256


class TorchBackend:
    """Backend `cpu`."""

    name = "cpu"

    def probe(self) -> DeviceInfo:
        import torch

        left = torch.arange(6, dtype=torch.float32).reshape(2, 3)
        if not torch.equal(left @ left.T, torch.tensor([[5.0, 14.0], [14.0, 50.0]])):
            raise BackendError("backend-missing", "torch computes a wrong product here", "Install another build of it.")
        able = of_torch_cpu(cpu_flags())
        return DeviceInfo(
            self.name, cpu_name(), memory_bytes(), f"torch {torch.__version__}", able.possible, TASKS, able.default
        )

    def load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        return coded(lambda: self._load(folder, options))

    def _load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        import torch

        facts = inspect(folder)
        choice = choose(options.precision, of_torch_cpu(cpu_flags()), facts.family.name)
        torch.set_num_threads(options.threads)
        options.progress("loading", 0, 1)
        before, footprint = resident_bytes(), Footprint(weight_files(folder))
        dtype = getattr(torch, _DTYPES.get(choice.name, "float32"))
        model = load_checked(folder, facts.family.torch_class, dtype)
        replaced = _replace_layers(model, choice.name, facts.task)
        details = _details(model, options, choice) | replaced
        loaded, canary = _opened(facts, model, details, choice.name)
        found = found_in(model, footprint.moved(), canary)
        loaded.memory_bytes = max(resident_bytes() - before, found.weight_bytes)
        dtype_name = type_name(str(dtype))
        loaded.details["evidence"] = prove(found, device="cpu", stored=choice.name, computes_in=dtype_name)
        options.progress("loading", 1, 1)
        return loaded


def _replace_layers(model: Any, precision: str, task: str) -> dict[str, int]:
    """Layers that are computed in another way than torch's own."""
    if precision == "int8":
        replaced = quantize(model)
        give_back()
        return {"int8_layers": replaced}
    linear = prefer_onednn(model, _TOKENS.get(task, _MANY_TOKENS)) if precision == "f32" else 0
    return {"onednn_layers": linear}


def _opened(facts: ModelFacts, model: Any, details: dict[str, Any], precision: str) -> tuple[LoadedModel, Canary]:
    """The model of its family, and what became of the canary in it."""
    if facts.family.staged:
        listening = Listening(running(stages_of(facts.family, model)))
        staged = open_staged(facts, listening.stages, details, precision, 0)
        return staged, listening.run(staged)
    vocabulary = int(facts.config["vocab_size"])
    if facts.task == "text-generation":
        text = TextModel(facts, generating(model), details, precision, 0)
        answer(text, text.samples()[0])
        return text, try_stage("the model", scoring(model), some_ids(vocabulary))
    encode = _encoding(model)
    sentence = SentenceModel(facts, encode, details, precision, 0)
    answer(sentence, sentence.samples()[0])
    return sentence, try_encoding(encode, vocabulary)


def load_checked(folder: Path, cls: str, dtype: Any) -> Any:
    """The model with every weight from the file; transformers alone would fill what is missing at random.

    Raises:
        BackendError: not-a-model.
    """
    import transformers

    began = time.perf_counter()
    try:
        model, report = getattr(transformers, cls).from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:
        raise BackendError("not-a-model", f"it cannot be loaded: {error}"[:500]) from None
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing or report["mismatched_keys"]:
        raise BackendError("not-a-model", f"its weights lack {len(missing)} tensors, {missing[0] if missing else ''}")
    log.info("loaded in %.1f s", time.perf_counter() - began)
    return model.eval()


def _encoding(model: Any) -> Encode:
    import inspect as signatures

    import torch

    takes_types = "token_type_ids" in signatures.signature(model.forward).parameters

    def encode(input_ids: Ids, mask: Ids, types: Ids) -> States:
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        if takes_types:
            inputs["token_type_ids"] = torch.from_numpy(types)
        with torch.inference_mode():
            states: States = model(**inputs).last_hidden_state.float().numpy()
        return np.asarray(states)

    return encode


def _details(model: Any, options: LoadOptions, choice: Choice) -> dict[str, Any]:
    import torch
    import transformers

    parameter = next(model.parameters())
    return {
        "implementation": type(model).__name__,
        "library": f"torch {torch.__version__}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "device": str(parameter.device),
        "precision": choice.name,
        "precision_asked_for": choice.asked_for,
        "computes_in": type_name(str(parameter.dtype)),
        "threads": options.threads,
    }

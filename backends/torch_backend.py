"""PyTorch on the CPU."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from .families.known import TASKS
from .families.sentence import Encode, SentenceModel, States
from .families.staged import open_staged
from .families.text import TextModel
from .families.tokenizing import Ids
from .hardware import cpu_name, memory_bytes, resident_bytes
from .interface import BackendError, DeviceInfo, LoadedModel, LoadOptions
from .loading import inspect
from .onednn import prefer_onednn
from .torch_stages import running, stages_of
from .torch_text import generating

log = logging.getLogger(__name__)

_PRECISIONS: Final = ("f32", "bf16")
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
        return DeviceInfo(self.name, cpu_name(), memory_bytes(), f"torch {torch.__version__}", _PRECISIONS, TASKS)

    def load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        import torch

        if options.precision not in _PRECISIONS:
            raise BackendError("bad-input", f"the cpu backend has no precision {options.precision!r}")
        facts = inspect(folder)
        torch.set_num_threads(options.threads)
        options.progress("loading", 0, 1)
        before = resident_bytes()
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        model = load_checked(folder, facts.family.torch_class, dtype)
        tokens = _TOKENS.get(facts.task, _MANY_TOKENS)
        linear = prefer_onednn(model, tokens) if options.precision == "f32" else 0
        options.progress("loading", 1, 1)
        memory = max(resident_bytes() - before, _weight_bytes(model))
        details = _details(model, options, linear)
        if facts.task == "text-generation":
            return TextModel(facts, generating(model), details, options.precision, memory)
        if facts.family.staged:
            return open_staged(facts, running(stages_of(facts.family, model)), details, options.precision, memory)
        return SentenceModel(facts, _encoding(model), details, options.precision, memory)


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


def _weight_bytes(model: Any) -> int:
    """Weights that oneDNN has laid out for itself are buffers."""
    return sum(each.numel() * each.element_size() for each in (*model.parameters(), *model.buffers()))


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


def _details(model: Any, options: LoadOptions, linear: int) -> dict[str, Any]:
    import torch
    import transformers

    parameter = next(model.parameters())
    return {
        "implementation": type(model).__name__,
        "library": f"torch {torch.__version__}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "device": str(parameter.device),
        "precision": str(parameter.dtype).removeprefix("torch."),
        "threads": options.threads,
        "onednn_layers": linear,
    }

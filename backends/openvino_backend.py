"""OpenVINO. This process imports neither torch nor transformers: models are converted once by a process apart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from .conversion import CHOSEN, MODEL_FILE, ensure_converted
from .families.known import TASKS
from .families.sentence import Encode, SentenceModel, States
from .families.staged import open_staged
from .families.stages import Arrays, Remembering, Stage
from .families.text import TextModel
from .families.tokenizing import Ids
from .hardware import cpu_name, memory_bytes, resident_bytes
from .interface import BackendError, DeviceInfo, LoadedModel, LoadOptions
from .loading import ModelFacts, inspect
from .openvino_text import generating, open_pipeline

log = logging.getLogger(__name__)

_PRECISIONS: Final = ("f32", "bf16")
_DEVICE: Final = "CPU"


class OpenVinoBackend:
    """Backend `openvino:CPU`."""

    name = "openvino"

    def probe(self) -> DeviceInfo:
        """Compiles and runs a small product, and checks it."""
        import openvino as ov
        from openvino import opset13 as ops

        core = ov.Core()
        if _DEVICE not in core.available_devices:
            raise BackendError("backend-missing", f"OpenVINO has no device {_DEVICE} here", "Install openvino.")
        given = ops.parameter([2, 3], np.float32)
        model = ov.Model([ops.matmul(given, given, False, True)], [given])
        result = core.compile_model(model, _DEVICE)([np.arange(6, dtype=np.float32).reshape(2, 3)])[0]
        if not np.allclose(result, [[5, 14], [14, 50]], atol=0.1):
            raise BackendError("backend-missing", "OpenVINO computes a wrong product here", "Install another release.")
        version = ov.__version__.split("-")[0]
        device = str(core.get_property(_DEVICE, "FULL_DEVICE_NAME")) or cpu_name()
        return DeviceInfo(f"openvino:{_DEVICE}", device, memory_bytes(), f"openvino {version}", _PRECISIONS, TASKS)

    def load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        if options.precision not in _PRECISIONS:
            raise BackendError("bad-input", f"the openvino backend has no precision {options.precision!r}")
        facts = inspect(folder)
        converted = ensure_converted(folder, facts.task, options)
        options.progress("loading", 0, 1)
        before = resident_bytes()
        model = _opening(facts)(facts, converted, options)
        options.progress("loading", 1, 1)
        weights = sum(tensor.size for tensor in facts.tensors.values())
        model.memory_bytes = max(resident_bytes() - before, weights)
        return model


def _opening(facts: ModelFacts) -> Callable[[ModelFacts, Path, LoadOptions], LoadedModel]:
    if facts.family.staged:
        return _staged_model
    return _text_model if facts.task == "text-generation" else _sentence_model


def _staged_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> LoadedModel:
    compiled = {path.stem: _compile(path, options) for path in sorted(converted.glob("*.xml"))}
    details = _details("OpenVINO CompiledModel", options, next(iter(compiled.values())))
    stages = {name: _running(each) for name, each in compiled.items()}
    return open_staged(facts, stages, details, options.precision, 0)


def _sentence_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> LoadedModel:
    compiled = _compile(converted / MODEL_FILE, options)
    details = _details("OpenVINO CompiledModel", options, compiled)
    return SentenceModel(facts, _encoding(compiled), details, options.precision, 0)


def _text_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> LoadedModel:
    pipeline = open_pipeline(converted, _DEVICE, options)
    details = _details("openvino-genai ContinuousBatchingPipeline", options)
    return TextModel(facts, generating(pipeline), details, options.precision, 0)


def _compile(model: Path, options: LoadOptions) -> Any:
    """Precision is said: OpenVINO's own default on processors that have it is bf16."""
    import openvino as ov

    properties = {
        "INFERENCE_PRECISION_HINT": options.precision,
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "KV_CACHE_PRECISION": "f32" if options.precision == "f32" else "f16",
    }
    try:
        return ov.Core().compile_model(model, _DEVICE, properties)
    except RuntimeError as error:
        raise BackendError("conversion-failed", f"the converted model does not compile: {error}"[:500]) from None


def _encoding(compiled: Any) -> Encode:
    run = _running(compiled)
    names = [port.get_any_name() for port in compiled.inputs]

    def encode(input_ids: Ids, mask: Ids, types: Ids) -> States:
        given = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": types}
        states: States = run({name: given[name] for name in names})[0]
        return states

    return encode


def _running(compiled: Any) -> Stage:
    """A model that keeps a state gives each output a request of its own, with a state in it."""
    if CHOSEN not in {port.get_any_name() for port in compiled.inputs}:
        return _requesting(compiled, {})
    only = {CHOSEN: np.zeros(1, np.int32)}
    return Remembering(lambda: _requesting(compiled, only))


def _requesting(compiled: Any, always: Arrays) -> Stage:
    """One request object, one run at a time: a compiled model that is shared gives one caller another's output."""
    request = compiled.create_infer_request()
    lock = threading.Lock()

    def run(given: Arrays) -> list[Any]:
        with lock:
            results = request.infer({**given, **always}, share_inputs=True)
            return [np.array(results[place], dtype=np.float32) for place in range(len(compiled.outputs))]

    return run


def _details(implementation: str, options: LoadOptions, compiled: Any = None) -> dict[str, Any]:
    """What a compiled model says of itself; a pipeline hides its own, and is what it was asked to be."""
    import openvino as ov

    version = ov.__version__.split("-")[0]
    device, precision = _DEVICE, options.precision
    if compiled is not None:
        device = ",".join(map(str, compiled.get_property("EXECUTION_DEVICES")))
        precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    return {
        "implementation": implementation,
        "library": f"openvino {version}",
        "versions": {"openvino": version},
        "device": device,
        "precision": precision,
        "threads": options.threads,
    }

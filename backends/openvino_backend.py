"""OpenVINO. This process imports neither torch nor transformers: models are converted once by a process apart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from .canary import Canary, Listening, some_ids, try_encoding, try_stage
from .conversion import CHOSEN, MODEL_FILE, ensure_converted
from .families.known import TASKS
from .families.sentence import Encode, SentenceModel, States
from .families.staged import open_staged
from .families.stages import Arrays, Remembering, Stage
from .families.text import TextModel
from .families.tokenizing import Ids
from .footprint import Footprint
from .hardware import cpu_name, memory_bytes, resident_bytes
from .interface import BackendError, DeviceInfo, LoadedModel, LoadOptions
from .loading import ModelFacts, inspect
from .openvino_signs import devices_of, products_of, weights_of
from .openvino_text import generating, open_pipeline, scoring
from .precision import Abilities, Choice, choose, form_of, of_openvino, openvino_computes_in
from .signs import Found, prove
from .trial import answer, coded

log = logging.getLogger(__name__)

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
        able = _abilities()
        return DeviceInfo(
            able.backend, device, memory_bytes(), f"openvino {version}", able.possible, TASKS, able.default
        )

    def load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        return coded(lambda: self._load(folder, options))

    def _load(self, folder: Path, options: LoadOptions) -> LoadedModel:
        facts = inspect(folder)
        choice = choose(options.precision, _abilities(), facts.family.name)
        options = replace(options, precision=choice.name)
        converted = ensure_converted(folder, facts.task, form_of(choice.name), options)
        options.progress("loading", 0, 1)
        before, footprint = resident_bytes(), Footprint(converted.glob("*.bin"))
        opened = _opening(facts)(facts, converted, options)
        grown, found = resident_bytes() - before, _found(opened, converted, footprint.moved())
        model = opened.model
        model.memory_bytes = max(grown, found.weight_bytes)
        model.details |= _details(opened, options, choice)
        model.details["evidence"] = prove(
            found,
            device=_DEVICE,
            stored=form_of(choice.name),
            computes_in=openvino_computes_in(choice.name),
        )
        options.progress("loading", 1, 1)
        return model


@dataclass(frozen=True)
class _Opened:
    """A model that was tried with a canary, and what was compiled for it, where that can be had."""

    model: LoadedModel
    canary: Canary
    compiled: tuple[Any, ...] = ()


def _abilities() -> Abilities:
    import openvino as ov

    return of_openvino(_DEVICE, ov.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _found(opened: _Opened, converted: Path, moved: int | None) -> Found:
    weights = weights_of(converted.glob("*.xml"))
    return Found(
        devices_of(opened.compiled),
        weights.elements,
        weights.bytes,
        weights.largest_bytes,
        moved,
        opened.canary,
        products_of(opened.compiled),
    )


def _opening(facts: ModelFacts) -> Callable[[ModelFacts, Path, LoadOptions], _Opened]:
    if facts.family.staged:
        return _staged_model
    return _text_model if facts.task == "text-generation" else _sentence_model


def _staged_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> _Opened:
    compiled = {path.stem: _compile(path, options) for path in sorted(converted.glob("*.xml"))}
    listening = Listening({name: _running(each) for name, each in compiled.items()})
    model = open_staged(facts, listening.stages, _implementation("OpenVINO CompiledModel"), options.precision, 0)
    return _Opened(model, listening.run(model), tuple(compiled.values()))


def _sentence_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> _Opened:
    compiled = _compile(converted / MODEL_FILE, options)
    encode = _encoding(compiled)
    model = SentenceModel(facts, encode, _implementation("OpenVINO CompiledModel"), options.precision, 0)
    answer(model, model.samples()[0])
    return _Opened(model, try_encoding(encode, int(facts.config["vocab_size"])), (compiled,))


def _text_model(facts: ModelFacts, converted: Path, options: LoadOptions) -> _Opened:
    pipeline = open_pipeline(converted, _DEVICE, options)
    details = _implementation("openvino-genai ContinuousBatchingPipeline")
    model = TextModel(facts, generating(pipeline), details, options.precision, 0)
    answer(model, model.samples()[0])
    return _Opened(model, try_stage("the model", scoring(pipeline), some_ids(int(facts.config["vocab_size"]))))


def _compile(model: Path, options: LoadOptions) -> Any:
    """Precision is said: OpenVINO's own default on processors that have it is bf16."""
    import openvino as ov

    properties = {
        "INFERENCE_PRECISION_HINT": openvino_computes_in(options.precision),
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "KV_CACHE_PRECISION": "f16" if options.precision == "bf16" else "f32",
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


def _implementation(name: str) -> dict[str, Any]:
    import openvino as ov

    version = ov.__version__.split("-")[0]
    return {"implementation": name, "library": f"openvino {version}", "versions": {"openvino": version}}


def _details(opened: _Opened, options: LoadOptions, choice: Choice) -> dict[str, Any]:
    """What a compiled model says of itself; a pipeline hides its own, and is what it was asked to be."""
    hints = {str(each.get_property("INFERENCE_PRECISION_HINT").to_string()) for each in opened.compiled}
    return {
        "device": ",".join(devices_of(opened.compiled)) or _DEVICE,
        "precision": choice.name,
        "precision_asked_for": choice.asked_for,
        "computes_in": ",".join(sorted(hints)) or openvino_computes_in(choice.name),
        "threads": options.threads,
    }

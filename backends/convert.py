"""The converting process: a checked Hugging Face folder in, an OpenVINO model in one of the forms of `precision` out.

    python -m ipfs_accel_node.backends.convert FOLDER TARGET f32|fp16|int8|int4 [EXPORTED]

With EXPORTED, a folder that came out of it in f32, only what is there is made smaller.

It is bounded in memory, and whatever happens in it happens to no worker.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path
from typing import Any

from .child import end_with_parent
from .conversion import CHOSEN, MODEL_FILE
from .interface import BackendError
from .loading import ModelFacts, inspect
from .precision import bits_of
from .torch_stage import TorchStage

#: task → the class of optimum-intel that exports it.
_CLASSES = {"feature-extraction": "OVModelForFeatureExtraction", "text-generation": "OVModelForCausalLM"}
#: Weights that share a scale in 4 bits. With 64 the perplexity of SmolLM2-135M is 7 % higher, without AWQ 3 %.
_GROUP = 32
_MEMORY_FACTOR = 8
_MEMORY_BASE = 12 << 30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("form", choices=("f32", "fp16", "int8", "int4"))
    parser.add_argument("exported", type=Path, nargs="?")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    end_with_parent()
    try:
        facts = inspect(options.folder)
    except BackendError as error:
        sys.exit(str(error))
    bound = facts.memory_bytes * _MEMORY_FACTOR + _MEMORY_BASE
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    if options.exported is not None:
        _make_smaller(options.exported, facts, options.target, options.form)
    elif facts.family.staged:
        _convert_stages(facts, options.target, options.form)
    else:
        _convert(facts, options.target, options.form)


def _make_smaller(exported: Path, facts: ModelFacts, target: Path, form: str) -> None:
    import openvino as ov

    for file in sorted(exported.glob("*.xml")):
        _save(ov.Core().read_model(file), target / file.name, form, facts)


def _convert_stages(facts: ModelFacts, target: Path, form: str) -> None:
    """Each stage as a file of its name. What the modules warn of while they are traced was looked into."""
    import openvino as ov
    import torch

    from .torch_backend import load_checked
    from .torch_stages import stages_of

    model = load_checked(facts.folder, facts.family.torch_class, torch.float32)
    for name, stage in stages_of(facts.family, model).items():
        with torch.no_grad():
            converted = ov.convert_model(stage.module, example_input=stage.example)
        if stage.remembers:
            _keep_past(converted, stage)
        else:
            converted.reshape({input_name: _shape(stage, input_name) for input_name in stage.example})
        _save(converted, target / f"{name}.xml", form, facts)


def _keep_past(converted: Any, stage: TorchStage) -> None:
    """What comes out as the past is kept in the request, and is what goes in the next time."""
    from openvino._offline_transformations import apply_make_stateful_transformation

    past = stage.example["past"]
    given, kept = converted.inputs[-len(past) :], converted.outputs[-len(past) :]
    shapes = {port: _free(each, stage.free["past"]) for port, each in zip(given, past, strict=True)}
    for name in set(stage.example) - {"past"}:
        shapes[converted.input(name)] = _shape(stage, name)
    converted.reshape(shapes)
    pairs = {}
    for place, (before, after) in enumerate(zip(given, kept, strict=True)):
        before.get_tensor().set_names({f"past.{place}"})
        after.get_tensor().set_names({f"present.{place}"})
        pairs[f"past.{place}"] = f"present.{place}"
    _choose_past(converted, given)
    apply_make_stateful_transformation(converted, pairs)
    _begin_empty(converted)


def _choose_past(converted: Any, past: list[Any]) -> None:
    """Which of several outputs goes on: there is one, but OpenVINO keeps a cache in place only where this is asked."""
    import numpy as np
    from openvino import opset13 as ops

    chosen = ops.parameter([-1], np.int32, name=CHOSEN)
    chosen.output(0).get_tensor().set_names({CHOSEN})
    for port in past:
        readers = list(port.get_target_inputs())
        picked = ops.gather(port, chosen, ops.constant(np.int32(0)))
        for reader in readers:
            reader.replace_source_output(picked.output(0))
    converted.add_parameters([chosen])
    converted.validate_nodes_and_infer_types()


def _begin_empty(converted: Any) -> None:
    """Nothing is kept when an output begins; said, because the cache in place does not take it for granted."""
    import numpy as np
    from openvino import opset13 as ops

    for node in converted.get_ops():
        if node.get_type_name() == "ReadValue":
            shape = [0 if size.is_dynamic else size.get_length() for size in node.get_output_partial_shape(0)]
            nothing = ops.broadcast(ops.constant(np.float32(0)), ops.constant(np.array(shape, np.int64)))
            node.set_arguments([nothing.output(0)])
    converted.validate_nodes_and_infer_types()


def _shape(stage: TorchStage, name: str) -> list[int]:
    return _free(stage.example[name], stage.free.get(name, ()))


def _free(example: Any, axes: tuple[int, ...]) -> list[int]:
    """-1 for an axis that may have any length."""
    return [-1 if axis in axes else size for axis, size in enumerate(example.shape)]


def _convert(facts: ModelFacts, target: Path, form: str) -> None:
    from optimum import intel

    cls = getattr(intel, _CLASSES[facts.task])
    model = cls.from_pretrained(
        str(facts.folder),
        export=True,
        compile=False,
        load_in_8bit=False,
        trust_remote_code=False,
        local_files_only=True,
    )
    _save(model.model, target / MODEL_FILE, form, facts)


def _save(model: Any, file: Path, form: str, facts: ModelFacts) -> None:
    import openvino as ov

    bits = bits_of(form, facts.family.name, file.stem)
    if bits < 16:
        model = _compressed(model, bits)
    ov.save_model(model, file, compress_to_fp16=bits == 16)


def _compressed(model: Any, bits: int) -> Any:
    """Weights alone, from nothing but themselves. In 4 bits a table and the last layer keep 8, as nncf has it."""
    import nncf

    modes = nncf.CompressWeightsMode
    if bits == 8:
        return nncf.compress_weights(model, mode=modes.INT8_ASYM)
    return nncf.compress_weights(model, mode=modes.INT4_ASYM, group_size=_GROUP, ratio=1.0, awq=True)


if __name__ == "__main__":
    main()

"""Text generation with openvino-genai's continuous batching, one step a token. No tokenizer of its own is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .families.stages import Arrays, Stage
from .families.text import Generate, Take
from .families.text_params import TextParams
from .interface import BackendError, LoadOptions
from .precision import openvino_computes_in

#: Tokens of a prompt that are read in one step, between two looks at whether the job was cancelled.
_STEP_TOKENS: Final = 512


def open_pipeline(converted: Path, device: str, options: LoadOptions) -> Any:
    """Raises BackendError conversion-failed."""
    import openvino_genai

    scheduling = openvino_genai.SchedulerConfig()
    scheduling.max_num_batched_tokens = _STEP_TOKENS
    scheduling.enable_prefix_caching = False
    computes_in = openvino_computes_in(options.precision)
    properties: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": computes_in,
        "INFERENCE_NUM_THREADS": options.threads,
    }
    if computes_in == "f32":
        properties["KV_CACHE_PRECISION"] = "f32"
    try:
        return openvino_genai.ContinuousBatchingPipeline(converted, scheduling, device, properties)
    except RuntimeError as error:
        raise BackendError("conversion-failed", f"the converted model does not compile: {error}"[:500]) from None


def generating(pipeline: Any) -> Generate:
    """One request at a time, from one thread."""
    import openvino

    def generate(ids: list[int], params: TextParams, limit: int, take: Take) -> None:
        given = openvino.Tensor(np.array([ids], dtype=np.int64))
        handle = pipeline.add_request(0, given, _config(params, limit, len(ids)))
        try:
            while pipeline.has_non_finished_requests():
                pipeline.step()
                if not all(map(take, _new_tokens(handle))):
                    return
        finally:
            _end(pipeline, handle)

    return generate


def scoring(pipeline: Any) -> Stage:
    """`input_ids` [1, n] → the best next token and the logarithm of its probability, as one array [2]."""
    import openvino

    def score(given: Arrays) -> list[NDArray[Any]]:
        config = _config(TextParams(), 1, 0)
        config.logprobs = 1
        handle = pipeline.add_request(0, openvino.Tensor(given["input_ids"]), config)
        try:
            while pipeline.has_non_finished_requests():
                pipeline.step()
            (output,) = handle.read().values()
            return [np.array([output.generated_ids[0], output.generated_log_probs[0]])]
        finally:
            _end(pipeline, handle)

    return score


def _new_tokens(handle: Any) -> list[int]:
    tokens: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
    return tokens


def _end(pipeline: Any, handle: Any) -> None:
    """Leaves nothing of the request behind, however it ended: the next one starts on a free cache."""
    handle.cancel()
    while pipeline.has_non_finished_requests():
        pipeline.step()


def _config(params: TextParams, limit: int, place: int) -> Any:
    """`place` goes into the seed, so that an output that is taken up again does not repeat its draws."""
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = limit
    # Where the output ends is decided by who takes the tokens; the engine wants some id all the same.
    config.set_eos_token_id(0)
    config.ignore_eos = True
    config.repetition_penalty = params.repetition_penalty or 1.0
    config.do_sample = params.samples
    if params.samples:
        config.temperature = params.temperature
        config.top_p = params.top_p
        config.top_k = params.top_k or (1 << 31)
        config.rng_seed = (params.seed + place) & ((1 << 63) - 1)
    return config

"""Text generation with torch: transformers' own `generate`, watched token by token."""

from __future__ import annotations

from typing import Any

from .families.stages import Arrays, Stage
from .families.text import Generate, Take
from .families.text_params import TextParams


def generating(model: Any) -> Generate:
    """`generate` of a loaded `AutoModelForCausalLM`. Where it ends is decided by who takes the tokens."""
    import torch
    from transformers import GenerationConfig

    # What the folder says would be put in wherever a request says nothing; here each request says everything.
    model.generation_config = GenerationConfig()

    def generate(ids: list[int], params: TextParams, limit: int, take: Take) -> None:
        given = torch.tensor([ids])
        with torch.inference_mode():
            model.generate(
                given,
                attention_mask=torch.ones_like(given),
                generation_config=_config(params, limit),
                logits_processor=[_seeded(params.seed)] if params.samples else [],
                stopping_criteria=[_watched(take)],
            )

    return generate


def scoring(model: Any) -> Stage:
    """`input_ids` [1, n] → the logits of the next token [1, vocabulary]."""
    import torch

    def score(given: Arrays) -> list[Any]:
        ids = torch.from_numpy(given["input_ids"]).to(model.device)
        with torch.inference_mode():
            return [model(ids, use_cache=False).logits[:, -1].float().cpu().numpy()]

    return score


def _config(params: TextParams, limit: int) -> Any:
    from transformers import GenerationConfig

    drawing = {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k}
    return GenerationConfig(
        max_new_tokens=limit,
        do_sample=params.samples,
        repetition_penalty=params.repetition_penalty,
        eos_token_id=None,
        pad_token_id=0,
        **(drawing if params.samples else {}),
    )


def _watched(take: Take) -> Any:
    """Looks at each new token as soon as it is there."""
    import torch

    def watch(ids: Any, _scores: Any, **_: Any) -> Any:
        return torch.full((1,), not take(int(ids[0, -1])))

    return watch


def _seeded(seed: int) -> Any:
    """Makes what is drawn depend on the seed and the token's place alone, so that an output can be taken up again."""
    import torch

    def seeded(ids: Any, scores: Any) -> Any:
        torch.manual_seed(hash((seed, ids.shape[1])) & ((1 << 63) - 1))
        return scores

    return seeded

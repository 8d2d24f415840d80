"""The stages of LLaVA and LLaVA-Next as torch modules.

    see    pixels [n, 3, side, side]  → what the language model reads of each [n, patches, hidden], and for LLaVA-Next
                                        what ends a line of patches [hidden]
    embed  tokens [1, t]              → [1, t, hidden]
    write  embeds [1, t, hidden]      → logits of the last token [1, vocabulary]; it remembers what it read

`write` calls the layers of transformers one by one: its own caches cannot be traced for another engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .torch_stage import TorchStage


def llava_stages(model: Any) -> dict[str, TorchStage]:
    import torch

    config, inner = model.config, model.model
    layers, strategy = config.vision_feature_layer, config.vision_feature_select_strategy

    class See(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projector = inner.vision_tower, inner.multi_modal_projector
            self.newline = getattr(inner, "image_newline", None)

        def forward(self, pixel_values: Any) -> Any:
            states = self.tower(pixel_values, output_hidden_states=True).hidden_states
            chosen = [states[place] for place in ([layers] if isinstance(layers, int) else layers)]
            if strategy == "default":
                chosen = [each[:, 1:] for each in chosen]
            seen = self.projector(torch.cat(chosen, dim=-1))
            return seen if self.newline is None else (seen, self.newline + 0)

    class Embed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = inner.language_model.embed_tokens

        def forward(self, tokens: Any) -> Any:
            return self.embedding(tokens)

    side, channels = config.vision_config.image_size, config.vision_config.num_channels
    pixels = torch.zeros(2, channels, side, side)
    return {
        "see": TorchStage(See(), {"pixel_values": pixels}, {"pixel_values": (0,)}),
        "embed": TorchStage(Embed(), {"tokens": torch.ones(1, 3, dtype=torch.int64)}, {"tokens": (1,)}),
        "write": _write_stage(model, config.text_config),
    }


def _write_stage(model: Any, config: Any) -> TorchStage:
    import torch

    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    class Write(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.language, self.head = model.model.language_model, model.lm_head

        def forward(self, embeds: Any, past: Any) -> Any:
            kept = _Kept(past)
            return self.step(embeds, kept, alone=False), *kept.arrays

        def fresh(self) -> Callable[..., Any]:
            nothing = self.language.norm.weight.new_zeros(1, heads, 0, width)
            kept = _Kept([nothing] * (2 * config.num_hidden_layers))
            # One token sees all before it, and is faster where no mask says so.
            return lambda embeds: self.step(embeds, kept, alone=embeds.shape[1] == 1)

        def step(self, states: Any, kept: _Kept, *, alone: bool) -> Any:
            before = kept.arrays[0].shape[2]
            places = torch.arange(states.shape[1], device=states.device) + before
            seen = torch.arange(states.shape[1] + before, device=states.device)[None, :] <= places[:, None]
            mask = None if alone else _hiding(~seen, states.dtype)
            rotary = self.language.rotary_emb(states, places[None])
            for layer in self.language.layers:
                states = layer(
                    states, attention_mask=mask, position_embeddings=rotary, past_key_values=kept,
                    use_cache=True, cache_position=places,
                )  # fmt: skip
            return self.head(self.language.norm(states[:, -1]))

    past = tuple(torch.zeros(1, heads, 2, width) for _ in range(2 * config.num_hidden_layers))
    example = {"embeds": torch.zeros(1, 3, config.hidden_size), "past": past}
    return TorchStage(Write(), example, {"embeds": (1,), "past": (2,)}, remembers=True)


def _hiding(hidden: Any, dtype: Any) -> Any:
    """[1, 1, t, all]: what a token must not see gets the lowest score."""
    import torch

    return (hidden.to(dtype) * torch.finfo(dtype).min)[None, None]


class _Kept:
    """The keys and values of each layer, in the place of a cache of transformers."""

    def __init__(self, arrays: Any) -> None:
        self.arrays = list(arrays)

    def update(self, keys: Any, values: Any, layer: int, _: Any = None) -> tuple[Any, Any]:
        import torch

        keys = torch.cat((self.arrays[2 * layer], keys), dim=2)
        values = torch.cat((self.arrays[2 * layer + 1], values), dim=2)
        self.arrays[2 * layer : 2 * layer + 2] = keys, values
        return keys, values

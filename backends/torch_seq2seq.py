"""The stages of Whisper and T5 as torch modules: what is read once, and one step of writing with a cache.

    read   input features or ids            → what every layer of the decoder attends to [layers, 2, 1, heads, n, width]
    decode tokens [1, t], past, read        → logits of the last token [1, vocabulary], past with these tokens

`past` and `read` hold keys, then values. The decoder's layers are those of transformers, called one by one: its own
caches cannot be traced for another engine.
"""

from __future__ import annotations

from typing import Any

from .torch_stage import TorchStage


def whisper_stages(model: Any) -> dict[str, TorchStage]:
    import torch

    config, decoder = model.config, model.model.decoder
    heads = config.decoder_attention_heads

    class Read(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_features: Any) -> Any:
            states = self.model.model.encoder(input_features).last_hidden_state
            attentions = [layer.encoder_attn for layer in self.model.model.decoder.layers]
            return _stacked([_keys_values(each.k_proj, each.v_proj, states, heads) for each in attentions])

    class Decode(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.head = decoder, model.proj_out

        def forward(self, tokens: Any, past: Any, read: Any) -> Any:
            before, count = past.shape[4], tokens.shape[1]
            places = torch.arange(count) + before
            states = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[places]
            mask = _causal(places, before + count)
            now = []
            for number, layer in enumerate(self.decoder.layers):
                normed = layer.self_attn_layer_norm(states)
                own = layer.self_attn
                keys, values = _keys_values(own.k_proj, own.v_proj, normed, heads)
                keys = torch.cat((past[number, 0], keys), dim=2)
                values = torch.cat((past[number, 1], values), dim=2)
                now.append((keys, values))
                query = _split(own.q_proj(normed) * own.scaling, heads)
                states = states + own.out_proj(_attend(query, keys, values, mask))
                other = layer.encoder_attn
                query = _split(other.q_proj(layer.encoder_attn_layer_norm(states)) * other.scaling, heads)
                states = states + other.out_proj(_attend(query, read[number, 0], read[number, 1], None))
                inner = layer.activation_fn(layer.fc1(layer.final_layer_norm(states)))
                states = states + layer.fc2(inner)
            last = self.decoder.layer_norm(states[:, -1])
            return self.head(last), _stacked(now)

    frames = 2 * config.max_source_positions
    features = {"input_features": torch.zeros(1, config.num_mel_bins, frames)}
    width = config.d_model // heads
    return {
        "read": TorchStage(Read(), features, {}),
        "decode": _decode_stage(Decode(), config.decoder_layers, heads, width),
    }


def t5_stages(model: Any) -> dict[str, TorchStage]:
    import torch

    config, decoder = model.config, model.decoder
    heads = config.num_heads

    class Read(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            states = self.model.encoder(input_ids, attention_mask=torch.ones_like(input_ids)).last_hidden_state
            attentions = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
            return _stacked([_keys_values(each.k, each.v, states, heads) for each in attentions])

    class Decode(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.head = decoder, model.lm_head
            self.scale = config.d_model**-0.5 if config.tie_word_embeddings else 1.0

        def forward(self, tokens: Any, past: Any, read: Any) -> Any:
            before, count = past.shape[4], tokens.shape[1]
            places = torch.arange(count) + before
            states = self.decoder.embed_tokens(tokens)
            bias = self.bias(places, before + count) + _causal(places, before + count)
            now = []
            for number, block in enumerate(self.decoder.block):
                own = block.layer[0].SelfAttention
                normed = block.layer[0].layer_norm(states)
                keys, values = _keys_values(own.k, own.v, normed, heads)
                keys = torch.cat((past[number, 0], keys), dim=2)
                values = torch.cat((past[number, 1], values), dim=2)
                now.append((keys, values))
                states = states + own.o(_attend(_split(own.q(normed), heads), keys, values, bias))
                other = block.layer[1].EncDecAttention
                query = _split(other.q(block.layer[1].layer_norm(states)), heads)
                states = states + other.o(_attend(query, read[number, 0], read[number, 1], None))
                states = block.layer[2](states)
            last = self.decoder.final_layer_norm(states[:, -1]) * self.scale
            return self.head(last), _stacked(now)

        def bias(self, places: Any, end: Any) -> Any:
            """What the distance of each two tokens adds [1, heads, t, all]; the first block has it for all of them."""
            first = self.decoder.block[0].layer[0].SelfAttention
            distances = torch.arange(end)[None, :] - places[:, None]
            buckets = first._relative_position_bucket(
                distances,
                bidirectional=False,
                num_buckets=first.relative_attention_num_buckets,
                max_distance=first.relative_attention_max_distance,
            )
            return first.relative_attention_bias(buckets).permute(2, 0, 1)[None]

    ids = {"input_ids": torch.ones(1, 5, dtype=torch.int64)}
    return {
        "read": TorchStage(Read(), ids, {"input_ids": (1,)}),
        "decode": _decode_stage(Decode(), config.num_decoder_layers, heads, config.d_kv),
    }


def _decode_stage(module: Any, layers: int, heads: int, width: int) -> TorchStage:
    import torch

    example = {
        "tokens": torch.ones(1, 3, dtype=torch.int64),
        "past": torch.zeros(layers, 2, 1, heads, 2, width),
        "read": torch.zeros(layers, 2, 1, heads, 7, width),
    }
    return TorchStage(module, example, {"tokens": (1,), "past": (4,), "read": (4,)})


def _stacked(pairs: list[Any]) -> Any:
    import torch

    return torch.stack([torch.stack(pair) for pair in pairs])


def _keys_values(keys: Any, values: Any, states: Any, heads: int) -> tuple[Any, Any]:
    return _split(keys(states), heads), _split(values(states), heads)


def _split(states: Any, heads: int) -> Any:
    """[1, t, heads x width] → [1, heads, t, width]"""
    return states.view(1, -1, heads, states.shape[-1] // heads).transpose(1, 2)


def _attend(query: Any, keys: Any, values: Any, bias: Any) -> Any:
    """[1, t, heads x width]"""
    import torch

    scores = query @ keys.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    joined = torch.softmax(scores, dim=-1).to(values.dtype) @ values  # the bias may be f32 where the model is bf16
    return joined.transpose(1, 2).reshape(1, -1, query.shape[1] * values.shape[-1])


def _causal(places: Any, end: Any) -> Any:
    """[1, 1, t, all]: what a token must not see gets the lowest score."""
    import torch

    hidden = torch.arange(end)[None, :] > places[:, None]
    return (hidden.float() * torch.finfo(torch.float32).min)[None, None]

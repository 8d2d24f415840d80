"""The stages of each family as torch modules: run as they are by the torch backend, traced once for OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from .families.known import CLAP, CLIP, LLAVA, LLAVA_NEXT, T5, VIDEOMAE, VIDEOMAE_BASE, WAV2VEC2, WHISPER, XCLIP, Family
from .families.stages import Arrays, Remembering, Stage
from .torch_llava import llava_stages
from .torch_seq2seq import t5_stages, whisper_stages
from .torch_stage import TorchStage


def stages_of(family: Family, model: Any) -> dict[str, TorchStage]:
    """The stages of a loaded model of transformers."""
    return _BUILDERS[family.name](model)


def running(stages: dict[str, TorchStage]) -> dict[str, Stage]:
    """The stages as an engine's: numpy in, numpy out."""
    return {
        name: _remembering(stage.module) if stage.remembers else _running(stage.module, stage.module)
        for name, stage in stages.items()
    }


def _remembering(module: Any) -> Stage:
    return Remembering(lambda: _running(module, module.fresh()))


def _running(owner: Any, module: Any) -> Stage:
    """`owner` has the parameters that `module` computes with."""
    import torch

    dtype = next((each.dtype for each in owner.parameters()), torch.float32)

    def run(given: Arrays) -> list[Any]:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in given.items()}
        tensors = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
        with torch.inference_mode():
            results = module(**tensors)
        outputs = results if isinstance(results, tuple) else (results,)
        return [np.ascontiguousarray(each.float().numpy()) for each in outputs]

    return run


def _clip(model: Any) -> dict[str, TorchStage]:
    import torch

    class Image(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            vectors = self.model.get_image_features(pixel_values=pixel_values)
            return _unit(vectors), self.model.logit_scale.exp().reshape(1)

    size = model.config.vision_config.image_size
    channels = model.config.vision_config.num_channels
    return {
        "image": TorchStage(Image(), {"pixel_values": torch.zeros(2, channels, size, size)}, {"pixel_values": (0,)}),
        "text": _text_tower(model, normalizes=True),
    }


def _clap(model: Any) -> dict[str, TorchStage]:
    import torch

    class Audio(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_features: Any) -> Any:
            vectors = self.model.get_audio_features(input_features=input_features)
            return _unit(vectors), self.model.logit_scale_a.exp().reshape(1)

    config = model.config.audio_config
    frames = config.spec_size * (config.spec_size // config.num_mel_bins)
    example = torch.zeros(1, 1, frames - 23, config.num_mel_bins)
    return {
        "audio": TorchStage(Audio(), {"input_features": example}, {}),
        "text": _text_tower(model, normalizes=True),
    }


def _wav2vec2(model: Any) -> dict[str, TorchStage]:
    import torch

    class Ctc(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_values: Any) -> Any:
            return self.model(input_values=input_values).logits

    return {"ctc": TorchStage(Ctc(), {"input_values": torch.zeros(1, 16_000)}, {"input_values": (0, 1)})}


def _videomae(model: Any) -> dict[str, TorchStage]:
    """With a head its logits, without one the mean of the states of all tokens."""
    import torch

    class Video(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            seen = self.model(pixel_values=pixel_values)
            return seen.logits if hasattr(seen, "logits") else seen.last_hidden_state.mean(dim=1)

    config = model.config
    example = torch.zeros(1, config.num_frames, config.num_channels, config.image_size, config.image_size)
    return {"video": TorchStage(Video(), {"pixel_values": example}, {"pixel_values": (0,)})}


def _xclip(model: Any) -> dict[str, TorchStage]:
    """`get_video_features` of transformers cannot be traced: what it does is written out."""
    import torch

    vision, width = model.config.vision_config, model.config.projection_dim

    class Video(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            frames = pixel_values.reshape(-1, vision.num_channels, vision.image_size, vision.image_size)
            seen = self.model.vision_model(pixel_values=frames, return_dict=True)
            projected = self.model.visual_projection(seen.pooler_output)
            video = self.model.mit(projected.view(-1, vision.num_frames, width), return_dict=True).pooler_output
            features = self.model.prompts_visual_layernorm(seen.last_hidden_state[:, 1:, :])
            features = features @ self.model.prompts_visual_projection
            return _unit(video), features.view(1, vision.num_frames, -1, width).mean(dim=1)

    class Match(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompts = model.prompts_generator
            self.scale = model.logit_scale

        def forward(self, text_embeds: Any, video_embeds: Any, features: Any) -> Any:
            texts = text_embeds.unsqueeze(0)
            prompted = _unit(texts + self.prompts(texts, features))
            return torch.einsum("bd,bkd->bk", video_embeds, self.scale.exp() * prompted)

    example = torch.zeros(1, vision.num_frames, vision.num_channels, vision.image_size, vision.image_size)
    patches = (vision.image_size // vision.patch_size) ** 2
    matched = {
        "text_embeds": torch.ones(3, width),
        "video_embeds": torch.ones(1, width),
        "features": torch.ones(1, patches, width),
    }
    return {
        "video": TorchStage(Video(), {"pixel_values": example}, {}),
        "text": _text_tower(model, normalizes=False),
        "match": TorchStage(Match(), matched, {"text_embeds": (0,)}),
    }


def _text_tower(model: Any, *, normalizes: bool) -> TorchStage:
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            vectors = self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
            return _unit(vectors) if normalizes else vectors

    ids = torch.ones(2, 7, dtype=torch.int64)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return TorchStage(Text(), example, {"input_ids": (0, 1), "attention_mask": (0, 1)})


def _unit(vectors: Any) -> Any:
    return vectors / vectors.norm(p=2, dim=-1, keepdim=True)


_BUILDERS: Final[dict[str, Callable[[Any], dict[str, TorchStage]]]] = {
    CLIP.name: _clip,
    CLAP.name: _clap,
    WAV2VEC2.name: _wav2vec2,
    VIDEOMAE.name: _videomae,
    VIDEOMAE_BASE.name: _videomae,
    XCLIP.name: _xclip,
    WHISPER.name: whisper_stages,
    T5.name: t5_stages,
    LLAVA.name: llava_stages,
    LLAVA_NEXT.name: llava_stages,
}

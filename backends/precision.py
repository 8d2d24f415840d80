"""Precisions by name, and the rule by which one is chosen: pure, so that a node may ask it without an engine.

| name | weights | computes in |
|---|---|---|
| f32  | f32 | f32 |
| bf16 | bf16, or f32 that an engine rounds while it computes | bf16 |
| fp16 | f16 | f16 on a GPU; on a processor without it, in f32 |
| int8 | 8 bits each, one scale a row: weights alone | f32, or as the device does best |
| int4 | 4 bits each in a language model's own layers, one scale a group; 8 bits elsewhere | as int8 |

The rule: what is asked for runs, or is refused; nothing else is ever put in its place. Where nothing is asked for
(`auto`), a backend's own default runs: on processors f32, because then every node writes the same tokens, and a text
goes on at another node where one stopped. int8 and int4 change results, so no default is one of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from .interface import BackendError

NAMES: Final = ("f32", "bf16", "fp16", "int8", "int4")
#: Leaves it to the rule.
AUTO: Final = "auto"
#: family → the stages whose layers may have 4 bits: a language model's own; the others of such a family get 8.
_LANGUAGE: Final = {
    "text": frozenset({"openvino_model"}),
    "t5": frozenset({"read", "decode"}),
    "whisper": frozenset({"decode"}),
    "llava": frozenset({"write"}),
    "llava_next": frozenset({"write"}),
}
#: Flags of processors that compute in f16 themselves.
_HALF_FLAGS: Final = frozenset({"avx512_fp16", "asimdhp"})


@dataclass(frozen=True)
class Abilities:
    """What a backend can do on this machine, whatever the model, and what it does where nothing is asked for."""

    backend: str
    possible: tuple[str, ...]
    default: str = "f32"

    def for_family(self, family: str) -> tuple[str, ...]:
        """int4 is for families with a language model in them."""
        return tuple(name for name in self.possible if name != "int4" or family in _LANGUAGE)


@dataclass(frozen=True)
class Choice:
    """A precision, and whether somebody asked for it."""

    name: str
    asked_for: bool


def choose(asked: str, abilities: Abilities, family: str) -> Choice:
    """The precision to load a model of that family in. Raises BackendError bad-input, unsupported-precision."""
    if asked == AUTO:
        return Choice(abilities.default, asked_for=False)
    if asked not in NAMES:
        raise BackendError("bad-input", f"there is no precision {asked!r}", f"There are {', '.join((AUTO, *NAMES))}.")
    possible = abilities.for_family(family)
    if asked not in possible:
        raise BackendError(
            "unsupported-precision",
            f"{abilities.backend} does not run {family} models in {asked} here",
            f"It runs them in {', '.join(possible)}.",
        )
    return Choice(asked, asked_for=True)


def of_torch_cpu(flags: Collection[str]) -> Abilities:
    """torch on a processor with those `flags`: fp16 only where it computes in it, int4 nowhere."""
    half = ("fp16",) if _HALF_FLAGS & set(flags) else ()
    return Abilities("cpu", ("f32", "bf16", *half, "int8"))


def of_openvino(device: str, capabilities: Collection[str]) -> Abilities:
    """OpenVINO on a device that says it has those OPTIMIZATION_CAPABILITIES.

    OpenVINO puts another type in the place of one that the device has not, without a word: asked for f16 on a
    processor, it computed in bf16.
    """
    bf16 = ("bf16",) if "BF16" in capabilities else ()
    return Abilities(f"openvino:{device}", ("f32", *bf16, "fp16", "int8", "int4"))


def form_of(precision: str) -> str:
    """The form that a model is converted to for it: bf16 is computed from weights in f32."""
    return "f32" if precision == "bf16" else precision


def openvino_computes_in(precision: str) -> str:
    """The type of OpenVINO's matrix products on a processor, said to it: its own default would be bf16 there."""
    return "bf16" if precision == "bf16" else "f32"


def bits_of(form: str, family: str, stage: str) -> int:
    """Bits of a weight in one stage of a converted model."""
    if form == "int4":
        return 4 if stage in _LANGUAGE.get(family, ()) else 8
    return {"f32": 32, "fp16": 16, "int8": 8}[form]

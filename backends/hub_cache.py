"""The layout of the Hugging Face cache, in which the files of a model are links.

All in `models--owner--name/snapshots/COMMIT` are links into `models--owner--name/blobs`, where files lie by their hash.
"""

from __future__ import annotations

from pathlib import Path


def blobs_of(folder: Path) -> Path | None:
    """Where the links lead when `folder`, a resolved path, is a snapshot of such a cache, or is in one; else None."""
    for each in (folder, *folder.parents):
        if each.parent.name == "snapshots" and (blobs := each.parent.parent / "blobs").is_dir():
            return blobs
    return None

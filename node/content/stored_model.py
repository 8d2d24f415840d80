"""A model on this disk, as the store gives it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .layout import Label, Origin


@dataclass(frozen=True)
class StoredModel:
    """A model on this disk; `size` in bytes, times in seconds since 1970."""

    cid: str
    cid_bytes: bytes
    path: Path
    size: int
    label: Label

    def as_dict(self) -> dict[str, Any]:
        """For whoever asks which model it is."""
        return {"cid": self.cid, "name": self.name, "size": self.size}

    @property
    def name(self) -> str:
        return self.label.name

    @property
    def added_at(self) -> float:
        return self.label.added_at

    @property
    def last_used(self) -> float:
        return self.label.last_used

    @property
    def pinned(self) -> bool:
        return self.label.pinned

    @property
    def shared(self) -> bool:
        return self.label.shared

    @property
    def kept(self) -> bool:
        """Whether a pin keeps it here, this node's own or the cluster's."""
        return self.label.pinned or self.label.shared

    @property
    def origin(self) -> Origin:
        return Origin(self.label.origin, self.label.license, self.label.gated)

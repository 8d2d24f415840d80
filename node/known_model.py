"""A model as this node knows it, wherever it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from .content.store import StoredModel


@dataclass
class KnownModel:
    """A model somebody here has: its names, its size in bytes, its task, and who holds it."""

    cid: bytes
    names: set[str] = field(default_factory=set)
    size: int = 0
    task: str = ""
    here: StoredModel | None = None
    holders: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return min(self.names, default="")

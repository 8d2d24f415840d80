"""Who this node is, as its answers say it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IdentityCard:
    node: str
    node_name: str

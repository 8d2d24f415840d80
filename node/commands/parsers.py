"""The parsers of the commands that show and steer a running node, beside those in `cli`."""

from __future__ import annotations

from typing import Any

from .parsing import add


def add_node(commands: Any) -> None:
    add(commands, "status", "node:status", "show this node", "status --json")
    add(commands, "peers", "node:peers", "show the nodes that this one knows", "peers")
    add(commands, "token", "node:token", "print the line with which another node joins this cluster", "token")

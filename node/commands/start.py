"""`start`."""

from __future__ import annotations

import argparse
from typing import Any

from .. import config
from .output import console, print_json

_FLAGS = (
    "backends", "threads", "memory_bytes", "precision", "node_name", "listen", "peers", "join", "mdns", "log_level",
)  # fmt: skip


def start(options: argparse.Namespace) -> int:
    settings = config.load({flag: getattr(options, flag) for flag in _FLAGS}, options.data_dir)
    config.make_data_dir(settings.data_dir)
    from .. import app

    app.run(settings, (lambda facts: print_json(facts)) if options.json else _greet)
    return 0


def _greet(facts: dict[str, Any]) -> None:
    import sys

    out = console()
    out.print(f"[bold green]ready[/]  {facts['node_name']}  [dim]{facts['peer_id']}[/]")
    for address in facts["addresses"]:
        out.print(f"[dim]listening on[/] {address.split('/p2p/')[0]}")
    out.print("\nOn another machine, join this cluster with")
    out.print(f"  ipfs-accel-node start --join {facts['token']}", soft_wrap=True)
    out.print("[dim]Ctrl-C stops the node when its jobs have finished; a second one stops it at once.[/]")
    sys.stdout.flush()

"""`start`."""

from __future__ import annotations

import argparse
from typing import Any

from .. import config
from .output import console, print_json, safe

FLAGS = (
    "backends", "threads", "memory_bytes", "precision", "node_name", "listen", "peers", "join", "mdns", "log_level",
    "log_json", "listen_clients",
)  # fmt: skip


def start(options: argparse.Namespace) -> int:
    settings = config.load({flag: getattr(options, flag) for flag in FLAGS}, options.data_dir)
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
    if clients := facts["clients"]:
        out.print(f"\nClients on other machines find this node over TLS at {safe(', '.join(clients['addresses']))}")
        out.print("with this client token in a file that only they can read, or in IPFS_ACCEL_CLIENT_TOKEN:")
        out.print(f"  {clients['token']}", soft_wrap=True)
    out.print("[dim]Ctrl-C stops the node when its jobs have finished; a second one stops it at once.[/]")
    sys.stdout.flush()

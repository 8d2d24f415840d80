"""`start`."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import suppress
from typing import Any

from ...protocols.errors import AccelError
from .. import config
from .output import console, count, print_json, safe
from .parsing import called_as

_MOST_TOLD = 8


def start(options: argparse.Namespace) -> int:
    # Until the node takes it, Ctrl-C ends the process at once: an exception in the middle of an import can get lost.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    settings = config.load({flag: getattr(options, flag) for flag in config.FIELDS}, options.data_dir)
    config.make_data_dir(settings.data_dir)
    from .. import app

    app.run(settings, _ForPrograms() if options.json else _ForPeople())
    return 0


class _ForPrograms:
    """One line when it is ready; the rest is asked for."""

    def ready(self, facts: dict[str, Any]) -> None:
        print_json(facts)

    def linked(self, node_name: str) -> None:
        pass

    def alone(self, reasons: dict[str, AccelError]) -> None:
        pass

    def stopping(self, jobs: int) -> None:
        pass


class _ForPeople:
    """The token, and whether joining worked. Says little later on: a terminal that is paused would hold up the node."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def ready(self, facts: dict[str, Any]) -> None:
        out = console()
        out.print(f"[bold green]ready[/]  {facts['node_name']}  [dim]{facts['peer_id']}[/]")
        for address in facts["addresses"]:
            out.print(f"[dim]listening on[/] {address.split('/p2p/')[0]}")
        out.print("\nOn another machine, join this cluster with")
        out.print(f"  {called_as()} start --join {facts['token']}", soft_wrap=True)
        if clients := facts["clients"]:
            out.print(f"\nClients on other machines find this node over TLS at {safe(', '.join(clients['addresses']))}")
            out.print("with this client token in a file that only they can read, or in IPFS_ACCEL_CLIENT_TOKEN:")
            out.print(f"  {clients['token']}", soft_wrap=True)
        if facts["public"]:
            out.print("\n[bold yellow]public[/]: any IPFS peer that reaches this node may fetch the models on it, "
                      "but for gated ones, without being asked for a key. From Kubo:", soft_wrap=True)  # fmt: skip
            for address in facts["addresses"]:
                out.print(f"  ipfs swarm connect {address}", soft_wrap=True)
        out.print("[dim]Ctrl-C stops the node when its jobs have finished; a second one, at once.[/]")
        sys.stdout.flush()

    def linked(self, node_name: str) -> None:
        """Each peer once, and only the first of many."""
        if node_name not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(node_name)
            _say(f"[green]linked[/] with [bold]{safe(node_name)}[/]")

    def alone(self, reasons: dict[str, AccelError]) -> None:
        _say("[yellow]not linked with anybody yet[/]; it goes on trying.")
        for error in list(reasons.values())[:_MOST_TOLD]:
            _say(f"  {safe(error)}")

    def stopping(self, jobs: int) -> None:
        left = f", {count(jobs, 'job')} left to finish; Ctrl-C again stops at once" if jobs else ""
        _say(f"\n[yellow]stopping[/]{left}")


def _say(text: str) -> None:
    """The node goes on when nobody reads any more."""
    with suppress(OSError):
        console().print(text, soft_wrap=True)
        sys.stdout.flush()

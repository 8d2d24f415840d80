"""`status`, `peers`, `token` and `client-token`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from .output import console, duration, print_json, safe, short_peer, size, state_style, table
from .reaching import client_of


def status(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        facts = client.status()
    if options.json:
        print_json(facts)
        return
    out = console()
    out.print(f"[bold]{safe(facts['node_name'])}[/]  {state_style(facts['state'])}  [dim]{facts['peer_id']}[/]")
    jobs, memory = facts["jobs"], facts["memory"]
    out.print(
        f"up {duration(facts['uptime_s'])} · {facts['peers']} peers · {facts['models']} models · "
        f"jobs: {jobs['running']} running, {jobs['completed']} done, {jobs['failed']} failed · "
        f"memory for models: {size(memory['used'])} of {size(memory['limit'])}"
    )
    rows = table("backend", "device", "state", ">queued", ">wait", "doing")
    for backend in facts["backends"]:
        rows.add_row(
            safe(backend["name"]),
            safe(backend["device"]),
            state_style(backend["state"]),
            str(backend["queued"]),
            duration(backend["wait_s"]),
            safe(backend["activity"] or backend["reason"] or ""),
        )
    out.print(rows if facts["backends"] else "[dim]no backends: this node passes jobs on to its peers[/]")
    for address in facts["addresses"]:
        out.print(f"[dim]{safe(address)}[/]", soft_wrap=True)
    for failed in facts["unlinked"]:
        out.print(f"[yellow]not linked: {failed['address']}: {failed['message']} [/][dim]{failed['code']}[/]")
        out.print(f"[dim]{failed['hint']}[/]")


def peers(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        known = client.peers()
    if options.json:
        print_json(known)
        return
    if not known:
        console().print("No peers yet. `ipfs-accel-node token` prints the line with which another node joins.")
        return
    rows = table("node", "peer", "state", ">round trip", "backends", ">queued", ">models")
    for peer in sorted(known, key=lambda each: str(each["name"])):
        rows.add_row(*_row(peer))
    console().print(rows)


def token(options: argparse.Namespace) -> None:
    with Client(options.data_dir) as client:
        facts = client.status()
    if options.json:
        print_json({"token": facts["token"], "cluster_id": facts["cluster_id"]})
    else:
        print(f"ipfs-accel-node start --join {facts['token']}")


def client_token(options: argparse.Namespace) -> None:
    facts = _client_token(options)
    if options.json:
        print_json(facts)
        return
    print(facts["token"])
    if not facts["addresses"]:
        print("No node takes clients here yet: ipfs-accel-node start --listen-clients 0.0.0.0:4012", file=sys.stderr)
    for address in facts["addresses"]:
        print(f"ipfs-accel-node --node {address} --token-file FILE status", file=sys.stderr)


def _client_token(options: argparse.Namespace) -> dict[str, Any]:
    """The running node's; without one, what the data folder holds."""
    try:
        with Client(options.data_dir) as client:
            return client.client_token(new=options.new)
    except AccelError as error:
        if error.code != ErrorCode.NOT_RUNNING:
            raise
    from ..client_keys import ClientKeys
    from ..config import Paths, find_data_dir, make_data_dir
    from ..content.store import StoreLock

    paths = Paths(make_data_dir(find_data_dir(options.data_dir).value))
    with StoreLock(paths.content):
        keys = ClientKeys(paths)
        if options.new:
            keys.renew()
    return {**keys.describe(), "addresses": []}


def _row(peer: dict[str, Any]) -> tuple[str, ...]:
    backends = ", ".join(safe(backend["name"]) for backend in peer["backends"] if backend["state"] == "ready")
    return (
        safe(peer["name"]),
        short_peer(peer["peer_id"]),
        state_style(peer["state"] if peer["linked"] else "not linked"),
        f"{peer['rtt_ms']:.1f} ms",
        backends or "[dim]none[/]",
        str(sum(backend["queued"] for backend in peer["backends"])),
        str(len(peer["models"])),
    )

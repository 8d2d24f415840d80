"""`status`, `peers` and `token`."""

from __future__ import annotations

import argparse
from typing import Any

from ..client import Client
from ..client_requests import checked_timeout
from .output import console, duration, print_json, progress, safe, short_peer, size, state_style, table


def status(options: argparse.Namespace) -> None:
    with Client(options.data_dir) as client:
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
    with Client(options.data_dir) as client:
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


def pause(options: argparse.Namespace) -> None:
    wait_s = checked_timeout(options.timeout, 0) if options.wait else None
    with Client(options.data_dir) as client, progress("", quiet=options.json) as report:
        facts = client.pause(wait_s=wait_s, on_progress=report)
    if options.json:
        print_json(facts)
        return
    left = f"; {facts['in_hand']} left to finish" if facts["in_hand"] else ", and nothing runs here"
    console().print(f"{state_style('paused')}{left}. Jobs go to peers until `ipfs-accel-node resume` or a restart.")


def resume(options: argparse.Namespace) -> None:
    with Client(options.data_dir) as client:
        facts = client.resume()
    if options.json:
        print_json(facts)
    else:
        console().print(f"{state_style(facts['state'])}: this node computes jobs again.")


def token(options: argparse.Namespace) -> None:
    with Client(options.data_dir) as client:
        facts = client.status()
    if options.json:
        print_json({"token": facts["token"], "cluster_id": facts["cluster_id"]})
    else:
        print(f"ipfs-accel-node start --join {facts['token']}")


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

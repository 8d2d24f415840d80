"""`status`, `peers`, `pause`, `resume`, `token` and `client-token`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..client_requests import checked_timeout
from . import panels, publishing
from .output import console, print_json, progress, safe, state_style
from .parsing import called_as
from .reaching import client_of

_NO_BACKENDS = "[dim]no backends: this node passes jobs on to its peers[/]"


def status(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        facts = client.status()
        facts["kubo"] = client.kubo() if facts.get("kubo") else None
    if options.json:
        print_json(facts)
        return
    out = console()
    for line in panels.header(facts, whole_id=True):
        out.print(line, soft_wrap=True)
    out.print(panels.backends(facts) if facts["backends"] else _NO_BACKENDS)
    if facts["running"]:
        out.print(panels.jobs(facts["running"], facts["open"]))
    for address in facts["addresses"]:
        out.print(f"[dim]{safe(address)}[/]", soft_wrap=True)
    if facts["kubo"]:
        out.print(publishing.line(facts["kubo"]), soft_wrap=True)
    for gateway in facts.get("gateways", []):
        out.print(f"[dim]gateway {safe(gateway)}[/]", soft_wrap=True)
    for failed in facts["unlinked"]:
        out.print(
            f"[yellow]not linked: {safe(panels.unlinked(failed))}[/] [dim]{safe(failed['code'])}[/]", soft_wrap=True
        )
        out.print(f"[dim]{safe(failed['hint'])}[/]", soft_wrap=True)


def peers(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        known = client.peers()
    if options.json:
        print_json(known)
        return
    if not known:
        console().print("No peers yet. `ipfs-accel-node token` prints the line with which another node joins.")
        return
    console().print(panels.peers(known))


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
        print(f"{called_as()} start --join {facts['token']}")


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

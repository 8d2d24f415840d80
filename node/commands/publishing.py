"""`model publish|unpublish|providers`: what the IPFS daemon of a node has of its models, and who else has them."""

from __future__ import annotations

import argparse
from typing import Any, Final

from .output import console, count, print_json, progress, safe, size, table
from .reaching import client_of

_SHOWN_ADDRESSES: Final = 3


def publish(options: argparse.Namespace) -> None:
    with client_of(options) as client, progress(options.model[:20], quiet=options.json) as report:
        published = client.publish_model(options.model, as_files=options.as_files, on_progress=report)
    if options.json:
        print_json(published)
        return
    out = console()
    out.print(f"[bold]{published['cid']}[/]", soft_wrap=True)
    out.print(f"[dim]{size(published['size'])} pinned at {safe(published['kubo'])}[/]", soft_wrap=True)
    if error := published.get("provide_error"):
        out.print(f"[yellow]not provided in the DHT yet[/]: {safe(error['message'])}", soft_wrap=True)


def unpublish(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        taken = client.unpublish_model(options.model)
    if options.json:
        print_json(taken)
    else:
        was = "no longer pinned" if taken["was_pinned"] else "was not pinned any more"
        console().print(f"{taken['cid']} {was} at {safe(taken['kubo'])}", soft_wrap=True)


def providers(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        told = client.providers(options.model)
    if options.json:
        print_json(told)
        return
    out = console()
    out.print(f"[bold]{safe(told['name']) or 'no name'}[/]  {told['cid']}", soft_wrap=True)
    rows = table("node", "peer id")
    for node in told["nodes"]:
        rows.add_row(safe(node["node_name"]) + (" [dim]this node[/]" if node["here"] else ""), safe(node["node"]))
    if told["nodes"]:
        out.print(rows)
    else:
        out.print("[dim]no node of the cluster has it[/]")
    _print_outside(told)


def _print_outside(told: dict[str, Any]) -> None:
    out, ipfs = console(), told["ipfs"]
    if ipfs is None:
        why = "it is gated" if told["gated"] else "the node has no IPFS daemon (--kubo)"
        out.print(f"[dim]IPFS was not asked: {why}[/]")
        return
    if ipfs["error"]:
        out.print(f"[yellow]IPFS could not be asked[/]: {safe(ipfs['error']['message'])}", soft_wrap=True)
        return
    rows = table("IPFS peer", "address")
    for peer in ipfs["peers"]:
        rows.add_row(safe(peer["peer_id"]), "\n".join(safe(each) for each in peer["addresses"][:_SHOWN_ADDRESSES]))
    if ipfs["peers"]:
        out.print(rows)
    more = "" if ipfs["complete"] else "; there may be more, the time was up"
    out.print(f"[dim]{count(len(ipfs['peers']), 'peer')} of IPFS found in the DHT{more}[/]")


def line(kubo: dict[str, Any]) -> str:
    """The daemon, in a line of `status`."""
    if error := kubo["error"]:
        return f"[yellow]{safe(error['message'])}[/] [dim]{safe(error['code'])}[/]"
    return f"[dim]IPFS daemon {safe(kubo['version'])} at {safe(kubo['address'])}[/]"

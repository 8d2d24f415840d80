"""`model publish|unpublish`: what the IPFS daemon of a node has of its models."""

from __future__ import annotations

import argparse
from typing import Any

from .output import console, print_json, progress, safe, size
from .reaching import client_of


def publish(options: argparse.Namespace) -> None:
    with client_of(options) as client, progress(options.model[:20], quiet=options.json) as report:
        published = client.publish_model(options.model, on_progress=report)
    if options.json:
        print_json(published)
        return
    out = console()
    out.print(f"[bold]{published['cid']}[/]", soft_wrap=True)
    out.print(f"[dim]{size(published['size'])} pinned at {safe(published['kubo'])}[/]", soft_wrap=True)


def unpublish(options: argparse.Namespace) -> None:
    with client_of(options) as client:
        taken = client.unpublish_model(options.model)
    if options.json:
        print_json(taken)
    else:
        was = "no longer pinned" if taken["was_pinned"] else "was not pinned any more"
        console().print(f"{taken['cid']} {was} at {safe(taken['kubo'])}", soft_wrap=True)


def line(kubo: dict[str, Any]) -> str:
    """The daemon, in a line of `status`."""
    if error := kubo["error"]:
        return f"[yellow]{safe(error['message'])}[/] [dim]{safe(error['code'])}[/]"
    return f"[dim]IPFS daemon {safe(kubo['version'])} at {safe(kubo['address'])}[/]"

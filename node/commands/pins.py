"""`pin add|ls|rm`: what stays on this node, and with `--cluster` what the nodes keep among them."""

from __future__ import annotations

import argparse
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from .models import node_or_store
from .output import console, count, print_json, progress, safe, size, table


def add(options: argparse.Namespace) -> None:
    replicas = parse_replicas(options.replicas) if options.replicas else None
    if replicas and not options.cluster:
        raise AccelError(ErrorCode.BAD_INPUT, "--replicas is of a cluster's pin", "Add --cluster.")
    with progress(options.model[:20], quiet=options.json) as report, node_or_store(options) as (client, store):
        if client is not None:
            pinned = client.pin_model(options.model, cluster=options.cluster, replicas=replicas, on_progress=report)
        else:
            pinned = _pin(store, options, pinned=True)
    if options.cluster:
        _tell(options, pinned, f"is pinned by the cluster, on {_replicas(pinned['cluster']['replicas'])}")
    else:
        _tell(options, pinned, "stays on this node until `pin rm`")


def remove(options: argparse.Namespace) -> None:
    with node_or_store(options) as (client, store):
        if client is not None:
            unpinned = client.unpin_model(options.model, cluster=options.cluster)
        else:
            unpinned = _pin(store, options, pinned=False)
    everywhere = "is pinned by the cluster no longer: its nodes may remove it"
    _tell(options, unpinned, everywhere if options.cluster else "may be removed again")


def listing(options: argparse.Namespace) -> None:
    with node_or_store(options) as (client, store):
        pinned = client.pins() if client else [_pinned(each) for each in store.models() if each.kept]
    if options.json:
        print_json(pinned)
        return
    if not pinned:
        console().print("Nothing is pinned on this node. Pin a model: ipfs-accel-node pin add MODEL")
        return
    rows = table("model", "CID", ">size", "pinned on", "held by")
    for model in pinned:
        name = safe(model["name"]) or "[dim]no name[/]"
        rows.add_row(name, model["cid"][:12] + "…", size(model["size"]), _where(model), _holders(model["cluster"]))
    console().print(rows)
    for model in pinned:
        if model["cluster"] and (error := model["cluster"]["error"]):
            name = safe(model["name"] or model["cid"])
            console().print(f"[yellow]{name} cannot be held here[/]: {safe(error['message'])} [{error['code']}]")


def parse_replicas(text: str) -> tuple[int, int]:
    """`2:3`, or `2` for `2:2`. Raises AccelError bad-input."""
    lowest, _, highest = text.partition(":")
    try:
        return int(lowest), int(highest or lowest)
    except ValueError:
        raise AccelError(
            ErrorCode.BAD_INPUT, f"{text!r} are no replicas", "Say how many at least and at most: --replicas 2:3"
        ) from None


def _where(model: dict[str, Any]) -> str:
    cluster = _replicas(model["cluster"]["replicas"]) if model["cluster"] else ""
    return " and ".join(part for part in ("this node" if model["pinned"] else "", cluster) if part)


def _holders(cluster: dict[str, Any] | None) -> str:
    """Names, with what those do that are to hold it and do not yet."""
    if cluster is None:
        return "this node"
    holding = [safe(each["node_name"]) for each in cluster["holders"]]
    others = [
        f"[dim]{safe(each['node_name'])} {each['state']}"
        + (f" {each['percent']} %" if each["percent"] is not None else "")
        + "[/]"
        for each in cluster["others"]
    ]
    colour = "green" if cluster["enough"] else "yellow"
    return f"[{colour}]{', '.join(holding) or 'nobody'}[/]" + "".join(f", {each}" for each in others)


def _replicas(replicas: list[int | None]) -> str:
    lowest, highest = replicas
    if highest is None:
        return "all nodes"
    return count(highest, "node") if lowest == highest else f"{lowest} to {highest} nodes"


def _pin(store: Any, options: argparse.Namespace, *, pinned: bool) -> dict[str, Any]:
    if options.cluster:
        raise AccelError(
            ErrorCode.NOT_RUNNING, "the cluster's pins need a node that runs", "Start it: ipfs-accel-node start"
        )
    return _pinned(store.pin(store.resolve(options.model).cid_bytes, pinned=pinned))


def _pinned(stored: Any) -> dict[str, Any]:
    return {**stored.as_dict(), "pinned": stored.pinned, "cluster": None}


def _tell(options: argparse.Namespace, model: dict[str, Any], what: str) -> None:
    if options.json:
        print_json(model)
    else:
        console().print(f"{safe(model['name'] or model['cid'])} {what}", soft_wrap=True)

"""`model add|ls|info|get|rm`. Adding, listing and removing work without a running node too."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..config import Paths, absolute, default_data_dir, make_data_dir
from .output import console, duration, print_json, progress, safe, size, table


def add(options: argparse.Namespace) -> None:
    folder = absolute(options.folder)
    if not folder.is_dir():
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.folder} is no folder", "Give the one with the config.json.")
    with progress(folder.name, quiet=options.json) as report, _node_or_store(options) as (client, store):
        if client is not None:
            added = client.add_model(folder, options.name, on_progress=report)
        else:
            began = time.monotonic()
            stored = store.add(
                folder, name=options.name, progress=lambda state, done, total: report(state, done, total, "")
            )
            added = {**_described(stored), "files": _count(stored.path), "seconds": time.monotonic() - began}
    if options.json:
        print_json(added)
        return
    console().print(f"[bold]{added['cid']}[/]", soft_wrap=True)
    name = f"as {safe(added['name'])}, " if added["name"] else ""
    console().print(f"[dim]{name}{size(added['size'])} in {added['files']} files, {duration(added['seconds'])}[/]")


def listing(options: argparse.Namespace) -> None:
    with _node_or_store(options) as (client, store):
        models = client.models() if client is not None else [_unserved(each) for each in store.models()]
    if options.json:
        print_json(models)
        return
    if not models:
        console().print("No models yet. Add one: ipfs-accel-node model add FOLDER --name NAME")
        return
    rows = table("model", "CID", ">size", "here", "node", "backend", ">1 KiB text", "state")
    for model in models:
        shown = (
            safe(model["name"]) or "[dim]no name[/]",
            model["cid"][:12] + "…",
            size(model["size"]),
            "[green]●[/]" if model["here"] else "",
        )
        for place, offer in enumerate(model["nodes"] or [{}]):
            rows.add_row(*(shown if place == 0 else ("",) * len(shown)), *_offer_row(offer))
    console().print(rows)


def info(options: argparse.Namespace) -> None:
    with _node_or_store(options) as (client, store):
        model = client.model_info(options.model) if client is not None else _unserved(store.resolve(options.model))
    if options.json:
        print_json(model)
        return
    out = console()
    out.print(f"[bold]{safe(model['name']) or 'no name'}[/]  {model['cid']}", soft_wrap=True)
    out.print(
        f"{size(model['size'])} · {safe(model['task']) or 'no task that can be run'} · "
        + safe(model.get("path") or "at peers")
    )
    files, offers = table("file", ">size"), table("node", "backend", ">1 KiB text", "state")
    for file in model.get("files", []):
        files.add_row(safe(file["path"]), size(file["size"]))
    for offer in model["nodes"]:
        offers.add_row(*_offer_row(offer))
    for rows in (files, offers):
        if rows.row_count:
            out.print(rows)


def get(options: argparse.Namespace) -> None:
    with Client(options.data_dir) as client, progress(options.model[:20], quiet=options.json) as report:
        got = client.get_model(options.model, options.name, on_progress=report)
    if options.json:
        print_json(got)
        return
    out = console()
    out.print(f"[bold]{got['cid']}[/]", soft_wrap=True)
    if got["already"]:
        out.print("[dim]it was here already[/]")
        return
    rate = got["size"] / max(got["seconds"], 1e-9)
    peers = "1 peer" if len(got["by_source"]) == 1 else f"{len(got['by_source'])} peers"
    out.print(f"[dim]{size(got['size'])} in {duration(got['seconds'])}, {size(rate)}/s from {peers}[/]")


def remove(options: argparse.Namespace) -> None:
    with _node_or_store(options) as (client, store):
        if client is not None:
            removed = client.remove_model(options.model)
        else:
            stored = store.resolve(options.model)
            store.remove(stored.cid_bytes)
            removed = {"cid": stored.cid, "name": stored.name, "freed": stored.size}
    if options.json:
        print_json(removed)
    else:
        console().print(f"removed {safe(removed['name'] or removed['cid'])}, {size(removed['freed'])} freed")


@contextmanager
def _node_or_store(options: argparse.Namespace) -> Iterator[tuple[Client | None, Any]]:
    """The running node's client; without a node the store itself, locked while inside."""
    try:
        client = Client(options.data_dir)
    except AccelError as error:
        if error.code != ErrorCode.NOT_RUNNING:
            raise
        with _store(options) as store:
            yield None, store
        return
    with client:
        yield client, None


@contextmanager
def _store(options: argparse.Namespace) -> Iterator[Any]:
    from ..content.store import ModelStore, StoreLock

    data_dir = make_data_dir(absolute(options.data_dir) if options.data_dir else default_data_dir())
    root = Paths(data_dir).content
    with StoreLock(root):
        yield ModelStore(root)


def _described(stored: Any) -> dict[str, Any]:
    return {"cid": stored.cid, "name": stored.name, "size": stored.size}


def _unserved(stored: Any) -> dict[str, Any]:
    files = sorted(path for path in stored.path.rglob("*") if path.is_file())
    return {
        **_described(stored),
        "task": "",
        "here": True,
        "nodes": [],
        "path": str(stored.path),
        "files": [{"path": str(path.relative_to(stored.path)), "size": path.stat().st_size} for path in files],
    }


def _count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _offer_row(offer: dict[str, Any]) -> tuple[str, ...]:
    if not offer:
        return ("", "", "", "")
    if offer["fixed_ms"] is None:
        speed = "[dim]not measured[/]"
    else:
        speed = duration((offer["fixed_ms"] + offer["per_kib_ms"]) / 1e3)
    state = "[green]warm[/]" if offer["warm"] else "[yellow]cold[/]"
    return safe(offer["node_name"]), safe(offer["backend"]), speed, state

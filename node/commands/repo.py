"""`repo stat|gc|verify`: what the models take on this disk, what may go, what is damaged."""

from __future__ import annotations

import argparse
from typing import Any

from . import models
from .output import console, count, print_json, progress, safe, size

_ROWS = (
    ("models", "models"),
    ("pinned", "  of them pinned"),
    ("partial", "half fetched"),
    ("derived", "converted forms"),
    ("limit", "limit"),
    ("free", "free on the disk"),
)


def stat(options: argparse.Namespace) -> None:
    with models.node_or_store(options) as (client, store):
        usage = client.repo_stat() if client else store.usage()
    if options.json:
        print_json(usage)
        return
    out = console()
    for key, said in _ROWS:
        value = usage[key]
        out.print(f"{said:<18} {'none' if value is None else size(value)}")


def gc(options: argparse.Namespace) -> None:
    with models.node_or_store(options) as (client, store):
        if client:
            collected = client.repo_gc(unpinned=options.unpinned, dry_run=options.dry_run)
        else:
            collected = _collect(store, options)
    if options.json:
        print_json(collected)
        return
    out, verb = console(), "would go" if collected["dry_run"] else "removed"
    for model in collected["models"]:
        out.print(f"{safe(model['name'] or model['cid'])} {verb}, {size(model['size'])}", soft_wrap=True)
    if collected["leftovers"]:
        out.print(f"{count(len(collected['leftovers']), 'converted form')} without a model {verb}")
    if not collected["dry_run"]:
        out.print(f"[dim]{size(collected['freed'])} freed[/]")
    elif not collected["models"] and not collected["leftovers"]:
        out.print("Nothing would go. Unpinned models go with --unpinned, or when the disk_limit needs it.")


def verify(options: argparse.Namespace) -> int:
    with progress(options.model or "", quiet=options.json) as report, models.node_or_store(options) as (client, store):
        if client:
            checked = client.repo_verify(options.model, repair=options.repair, on_progress=report)
        else:
            checked = _verify(store, options.model, report)
    if options.json:
        print_json(checked)
    else:
        _tell(checked, repairs=options.repair, alone=client is None)
    return int(any(model["damaged"] and not model.get("repaired") for model in checked))


def _tell(checked: list[dict[str, Any]], *, repairs: bool, alone: bool) -> None:
    out = console()
    sound = [model for model in checked if not model["damaged"]]
    out.print(f"{count(len(sound), 'model')} sound, {size(sum(model['size'] for model in sound))}")
    for model in checked:
        if not model["damaged"]:
            continue
        name = safe(model["name"] or model["cid"])
        out.print(f"[red]{name}[/]: damaged are {safe(', '.join(model['damaged'][:5]))}", soft_wrap=True)
        if model.get("repaired"):
            out.print(f"  repaired from peers: {name} is sound again")
        elif error := model.get("error"):
            out.print(f"  it could not be repaired: {safe(error['message'])} [{error['code']}]", soft_wrap=True)
        elif alone:
            out.print(f"  start the node, then: ipfs-accel-node repo verify {name} --repair", soft_wrap=True)
        elif not repairs:
            out.print(
                f"  fetch the sound blocks from peers: ipfs-accel-node repo verify {name} --repair", soft_wrap=True
            )


def _collect(store: Any, options: argparse.Namespace) -> dict[str, Any]:
    from ..content.collection import plan, remove_folders

    planned = plan(store, unpinned=options.unpinned)
    if options.dry_run:
        return planned.told(planned.models, freed=0, dry_run=True)
    freed = remove_folders(planned.orphans)
    for model in planned.models:
        store.remove(model.cid_bytes)
        freed += model.size
    return planned.told(planned.models, freed=freed, dry_run=False)


def _verify(store: Any, model: str | None, report: Any) -> list[dict[str, Any]]:
    chosen = [store.resolve(model)] if model else store.models()
    return [
        {
            **stored.as_dict(),
            "damaged": store.verify(stored.cid_bytes, lambda state, done, total: report(state, done, total, "")),
        }
        for stored in chosen
    ]

"""`model catalog|find`: what could be added, from the hub and from what other programs have on this disk."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from ...backends.checkpoints import CHECKPOINTS, Checkpoint
from ..config import model_caches
from ..content.names import usable
from ..finding import Cache, find_models
from .output import console, count, print_json, printable, progress, safe, size
from .parsing import called_as


def catalog(options: argparse.Namespace) -> None:
    listed = [{**each.as_dict(), "command": _command_of(each)} for each in CHECKPOINTS]
    if options.json:
        print_json(listed)
        return
    out = console()
    for each in listed:
        task = each["task"] or "[yellow]not served yet[/]"
        terms = f"licence {each['license']}" + (", [yellow]gated[/]" if each["gated"] else "")
        out.print(f"[bold]{each['family']}[/]  about {size(each['size'])} · {terms} · {task}", soft_wrap=True)
        out.print(f"  {each['command']}" + (f"  [dim]# {each['note']}[/]" if each["note"] else ""), soft_wrap=True)


def _command_of(checkpoint: Checkpoint) -> str:
    return f"{called_as()} model add hf:{checkpoint.repository}" + (" --convert" if checkpoint.pickled else "")


def find(options: argparse.Namespace) -> None:
    caches = [Cache(kind, path) for kind, path in model_caches()]
    with progress("the caches", quiet=options.json) as report:
        report("searching", 0, 0, "")
        found = find_models(caches, options.name).as_dict()
    for model in found["models"]:
        model["command"] = _command_for(model)
    if options.json:
        print_json(found)
        return
    out = console()
    for model in found["models"]:
        _show(out, model)
    if not found["models"]:
        out.print("No models found." if not options.name else f"No model is called like {safe(options.name)}.")
    for cache in found["caches"]:
        out.print(f"[dim]{cache['kind']}: {safe(cache['path'])}, {safe(cache['state'])}[/]", soft_wrap=True)
    if not found["complete"]:
        out.print(f"[yellow]Not all was looked at[/]: {count(len(found['models']), 'model')} so far. Give a NAME.")


def _show(out: Any, model: dict[str, Any]) -> None:
    what = safe(model["task"] or model["why_not"])
    colour = "green" if model["task"] else "yellow" if model["can_add"] else "red"
    out.print(f"[bold]{safe(model['name'])}[/]  {size(model['size'])}  [{colour}]{what}[/]", soft_wrap=True)
    out.print(f"  {safe(model['command'] or model['path'])}", soft_wrap=True)


def _command_for(model: dict[str, Any]) -> str:
    """Empty for what cannot be added, and for a path that no terminal could show."""
    if not model["can_add"] or printable(model["path"]) != model["path"]:
        return ""
    name = usable(model["name"].rpartition("/")[2])
    words = [called_as(), "model", "add", model["path"], *(["--name", name] if name else [])]
    return shlex.join([*words, "--convert"] if model["convert"] else words)

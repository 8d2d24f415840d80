"""`model add|ls|info|get|rm`. What needs no peer works without a running node too."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..config import Paths, absolute, default_data_dir, make_data_dir
from ..content.cid import format_cid
from ..content.names import checked
from ..content.profiles import Profile, find_profile
from ..hub import is_reference, parse_reference
from ..judging import check_folder, judge
from ..model_source import ModelSource, opened_source
from . import panels
from .output import OnProgress, console, count, duration, print_json, printable, progress, safe, size, table
from .reaching import client_of, elsewhere


def add(options: argparse.Namespace) -> None:
    if options.name is not None:
        checked(options.name)
    _check_source(options)
    what = options.source.rpartition("/")[2] or options.source
    with progress(what, quiet=options.json) as report, node_or_store(options) as (client, store):
        if client is not None:
            added = client.add_model(options.source, options.name, anyway=options.anyway, convert=options.convert,
                                     license_name=options.license, gated=options.gated,
                                     cid_profile=options.cid_profile, on_progress=report)  # fmt: skip
        else:
            downloads = downloads_of(options)
            opened = opened_source(options.source, downloads, options.name, convert=options.convert, on_progress=report)
            added = add_to_store(options, store, opened, report)
    show_added(options, added)


def show_added(options: argparse.Namespace, added: dict[str, Any]) -> None:
    """What is known of a model that was just added."""
    if options.json:
        print_json(added)
        return
    console().print(f"[bold]{added['cid']}[/]", soft_wrap=True)
    name = f"as {safe(added['name'])}, " if added["name"] else ""
    files = count(added["files"], "file")
    made = f", {added['cid_profile']}" if options.cid_profile else ""
    console().print(f"[dim]{name}{size(added['size'])} in {files}, {duration(added['seconds'])}{made}[/]")
    _tell_origin(added)
    _warn_of(added)


def cid(options: argparse.Namespace) -> None:
    """What `model add` would print; no node is asked, and nothing is written."""
    from ..content.disk import coded_errors
    from ..content.importer import import_listed
    from ..content.local_folder import list_folder

    profile, done = _profile(options), 0
    with progress(options.folder, quiet=options.json) as report, coded_errors():
        listed = list_folder(absolute(options.folder))
        total = listed.size()

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            report("hashing", done, total, "")

        contents = import_listed(listed, None, on_bytes, profile=profile)
    named = {
        "cid": format_cid(contents.root),
        "cid_profile": profile.name,
        "size": contents.size,
        "files": len(contents.files),
    }
    if options.json:
        print_json(named)
        return
    console().print(f"[bold]{named['cid']}[/]", soft_wrap=True)
    console().print(f"[dim]{profile.name}, {size(contents.size)} in {count(len(contents.files), 'file')}[/]")


def _profile(options: argparse.Namespace) -> Profile:
    """The one that was asked for, or that the data folder's configuration names."""
    from .. import config

    return find_profile(options.cid_profile or config.load({}, _data_dir(options)).cid_profile)


def _check_source(options: argparse.Namespace) -> None:
    """What is wrong by itself is told before a node is asked."""
    if options.cid_profile is not None:
        find_profile(options.cid_profile)
    if is_reference(options.source):
        parse_reference(options.source)
    elif not absolute(options.source).is_dir():
        hint = "Give the one with the config.json, or hf:owner/name."
        raise AccelError(ErrorCode.BAD_INPUT, f"{options.source} is no folder", hint)


def downloads_of(options: argparse.Namespace) -> Path:
    """Where a model that is to be added is fetched to, or made."""
    return Paths(_data_dir(options)).downloads


def add_to_store(
    options: argparse.Namespace, store: Any, opened: AbstractContextManager[ModelSource], report: OnProgress
) -> dict[str, Any]:
    """Without a node. Gives what the node's operation `model.add` gives."""
    profile = _profile(options)
    with opened as found:
        given = found.with_notes(options.license, gated=options.gated)
        check_folder(given.path, anyway=options.anyway)
        began = time.monotonic()
        for model in store.evictable(*_needed(store, given)):
            store.remove(model.cid_bytes)
        stored = store.add(
            given.path, name=given.name, origin=given.origin, take=given.take, profile=profile,
            progress=lambda state, done, total: report(state, done, total, ""),
        )  # fmt: skip
    return {
        **stored.as_dict(),
        "cid_profile": profile.name,
        "files": _count(stored.path),
        "seconds": time.monotonic() - began,
        "why_not": judge(stored.path).why_not,
        "namesakes": _namesakes(store, stored),
        **stored.origin._asdict(),
    }


def _needed(store: Any, source: ModelSource) -> tuple[int, int]:
    """The size of what is to be added, and how much has to go first."""
    size, on_disk = store.size_to_add(source.path, take=source.take)
    return size, store.room().lacking(size, on_disk)


def _warn_of(added: dict[str, Any]) -> None:
    """It is kept all the same: others may run it, or a later version."""
    if added.get("why_not"):
        _warn(f"it cannot be run: {added['why_not']}")
    if added.get("namesakes"):
        _warn(f"{added['name']!r} is the name of {', '.join(added['namesakes'])} too: `model add` again with another "
              "--name, or call them by their CIDs")  # fmt: skip


def _tell_origin(model: dict[str, Any]) -> None:
    said = [f"from {model['origin']}"] if model.get("origin") else []
    said += [f"licence {model['license']}"] if model.get("license") else []
    said += ["gated: it never leaves the cluster"] if model.get("gated") else []
    if said:
        console().print(f"[dim]{safe(' · '.join(said))}[/]", soft_wrap=True)


def _warn(text: str) -> None:
    print("warning: " + printable(text), file=sys.stderr)


def listing(options: argparse.Namespace) -> None:
    with node_or_store(options) as (client, store):
        models = client.models() if client is not None else [_unserved(each) for each in store.models()]
    if options.json:
        print_json(models)
        return
    if not models:
        console().print("No models yet. Add one: ipfs-accel-node model add FOLDER --name NAME")
        return
    console().print(panels.models(models))


def info(options: argparse.Namespace) -> None:
    with node_or_store(options) as (client, store):
        model = client.model_info(options.model) if client is not None else _judged(store.resolve(options.model))
    if options.json:
        print_json(model)
        return
    out = console()
    out.print(f"[bold]{safe(model['name']) or 'no name'}[/]  {model['cid']}", soft_wrap=True)
    out.print(
        f"{size(model['size'])} · {safe(model['task']) or 'no task that can be run'}"
        + (" · pinned on this node" if model["pinned"] else "")
    )
    if model.get("why_not"):
        out.print(f"[yellow]{safe(model['why_not'])}[/]", soft_wrap=True)
    if model.get("damaged"):
        out.print(f"[red]damaged on disk: {safe(', '.join(model['damaged'][:5]))}[/]", soft_wrap=True)
    _tell_origin(model)
    out.print(f"[dim]{safe(model.get('path') or 'at peers')}[/]", soft_wrap=True)
    files, offers = table("file", ">size"), table("node", "backend", ">1 KiB text", "state")
    for file in model.get("files", []):
        files.add_row(safe(file["path"]), size(file["size"]))
    for offer in model["nodes"]:
        offers.add_row(*panels.offer_row(offer))
    for rows in (files, offers):
        if rows.row_count:
            out.print(rows)


def get(options: argparse.Namespace) -> None:
    with client_of(options) as client, progress(options.model[:20], quiet=options.json) as report:
        got = client.get_model(options.model, options.name, ipfs_peers=options.ipfs_peers, on_progress=report)
    if options.json:
        print_json(got)
        return
    out = console()
    out.print(f"[bold]{got['cid']}[/]", soft_wrap=True)
    if got["already"]:
        out.print("[dim]it was here already[/]")
        return
    rate = got["size"] / max(got["seconds"], 1e-9)
    sources = count(len(got["by_source"]), "peer")
    out.print(f"[dim]{size(got['size'])} in {duration(got['seconds'])}, {size(rate)}/s from {sources}[/]")


def remove(options: argparse.Namespace) -> None:
    with node_or_store(options) as (client, store):
        if client is not None:
            removed = client.remove_model(options.model)
        else:
            stored = store.resolve(options.model)
            store.remove(stored.cid_bytes)
            removed = {"cid": stored.cid, "name": stored.name, "freed": stored.size}
    if options.json:
        print_json(removed)
    else:
        what = safe(removed["name"] or removed["cid"])
        console().print(f"removed {what}, {size(removed['freed'])} freed", soft_wrap=True)


@contextmanager
def node_or_store(options: argparse.Namespace) -> Iterator[tuple[Client | None, Any]]:
    """The running node's client; without a node the store itself, locked while inside."""
    try:
        client = client_of(options)
    except AccelError as error:
        if error.code != ErrorCode.NOT_RUNNING or elsewhere(options) is not None:
            raise
        with _store(options) as store:
            yield None, store
        return
    with client:
        yield client, None


@contextmanager
def _store(options: argparse.Namespace) -> Iterator[Any]:
    from .. import config
    from ..catalogue import open_store
    from ..content.store import StoreLock

    data_dir = make_data_dir(_data_dir(options))
    with StoreLock(Paths(data_dir).content):
        yield open_store(Paths(data_dir), config.load({}, data_dir).disk_limit)


def _data_dir(options: argparse.Namespace) -> Path:
    return absolute(options.data_dir) if options.data_dir else default_data_dir()


def _unserved(stored: Any) -> dict[str, Any]:
    files = sorted(path for path in stored.path.rglob("*") if path.is_file())
    return {
        **stored.as_dict(),
        "task": "",
        "here": True,
        "pinned": stored.pinned,
        "damaged": [],
        "nodes": [],
        "path": str(stored.path),
        "files": [{"path": str(path.relative_to(stored.path)), "size": path.stat().st_size} for path in files],
    }


def _judged(stored: Any) -> dict[str, Any]:
    return {**_unserved(stored), **judge(stored.path)._asdict(), **stored.origin._asdict()}


def _namesakes(store: Any, stored: Any) -> list[str]:
    return [each.cid for each in store.models() if stored.name and each.name == stored.name and each.cid != stored.cid]


def _count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())

"""`model export` and `model import`: a model as a CAR file, or through a pipe."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from ..config import Paths, absolute, default_data_dir
from ..content.cid import parse_cid
from ..content.names import checked
from .models import node_or_store
from .output import OnProgress, console, duration, print_json, progress, safe, size

_PIPE = "-"


def export_model(options: argparse.Namespace) -> None:
    """Files that are here never change, so this process reads them itself, whether a node runs or not."""
    from ..content.car_export import export_file, export_stream

    if options.file == _PIPE and options.json:
        raise AccelError(ErrorCode.BAD_INPUT, "the CAR and the JSON would both go to standard output", "Give a file.")
    with node_or_store(options) as (client, store):
        model = client.model_info(options.model) if client else store.resolve(options.model).as_dict()
        began = time.monotonic()
        with progress(options.model, quiet=options.json) as report:
            told = partial(_told, report)
            content, cid = _paths(options).content, parse_cid(model["cid"])
            if options.file == _PIPE:
                export_stream(content, cid, sys.stdout.buffer, told)
                sys.stdout.buffer.flush()
                return
            written = export_file(content, cid, absolute(options.file), told)
    if options.json:
        print_json({"cid": model["cid"], "path": str(absolute(options.file)), "written": written})
    else:
        console().print(f"{safe(options.file)}: {size(written)}, {duration(time.monotonic() - began)}", soft_wrap=True)
        console().print(f"[dim]{model['cid']}[/]", soft_wrap=True)


def import_model(options: argparse.Namespace) -> None:
    if options.name is not None:
        checked(options.name)
    root = parse_cid(options.root) if options.root else None
    what = "standard input" if options.file == _PIPE else Path(options.file).name
    with (
        progress(what, quiet=options.json) as report,
        _file(options, report) as path,
        node_or_store(options) as (client, store),
    ):
        importing = partial(_import_at_node, client) if client else partial(_import, store, root)
        got = importing(options, path, report)
    if options.json:
        print_json(got)
        return
    out = console()
    out.print(f"[bold]{got['cid']}[/]", soft_wrap=True)
    name = f"as {safe(got['name'])}, " if got["name"] else ""
    out.print("[dim]it was here already[/]" if got["already"] else
              f"[dim]{name}{size(got['size'])}, {duration(got['seconds'])}[/]")  # fmt: skip


def _import_at_node(client: Client, options: argparse.Namespace, path: Path, report: OnProgress) -> dict[str, Any]:
    return client.import_model(
        path, options.name, root=options.root, license_name=options.license, gated=options.gated, on_progress=report
    )


def _import(
    store: Any, root: bytes | None, options: argparse.Namespace, path: Path, report: OnProgress
) -> dict[str, Any]:
    import trio

    from ..content.car_source import import_car
    from ..content.fetch import Fetcher
    from ..content.store import Origin

    got = trio.run(
        partial(
            import_car, Fetcher(store), path, root=root, name=options.name,
            origin=Origin("", options.license, options.gated), progress=partial(_told, report),
        )
    )  # fmt: skip
    stored = store.get(got.cid)
    return {"already": got.already, "seconds": got.seconds, "by_source": got.by_source, **stored.as_dict()}


@contextmanager
def _file(options: argparse.Namespace, report: OnProgress) -> Iterator[Path]:
    """The CAR as a file: what comes through a pipe is kept beside the store while this lasts."""
    if options.file != _PIPE:
        yield absolute(options.file)
        return
    from ..content.car_source import keep_stream

    downloads = _paths(options).downloads
    downloads.mkdir(parents=True, exist_ok=True)
    kept = downloads / f"{uuid4().hex[:8]}.car"
    try:
        keep_stream(sys.stdin.buffer, kept, lambda done: report("receiving", done, 0, ""))
        yield kept
    finally:
        kept.unlink(missing_ok=True)


def _paths(options: argparse.Namespace) -> Paths:
    return Paths(absolute(options.data_dir) if options.data_dir else default_data_dir())


def _told(report: OnProgress, state: str, done: int, total: int) -> None:
    report(state, done, total, "")

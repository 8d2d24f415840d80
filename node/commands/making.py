"""`model make`: a model with random weights, for trying what a family does without network."""

from __future__ import annotations

import argparse
from typing import Any

from ...protocols.errors import AccelError
from ..config import absolute
from ..content.names import checked
from ..model_source import made_source, write_made
from .models import add_to_store, downloads_of, node_or_store, show_added
from .output import OnProgress, console, print_json, progress, safe, size


def make(options: argparse.Namespace) -> None:
    if options.name is not None:
        checked(options.name)
    with progress(f"{options.family}, {options.size}", quiet=options.json) as report:
        if options.out_folder is not None:
            written = _written(options, report)
        else:
            added = _added(options, report)
    if options.out_folder is None:
        show_added(options, added)
    elif options.json:
        print_json(written)
    else:
        console().print(f"{safe(written['path'])}  [dim]{size(written['size'])}, weights: random[/]", soft_wrap=True)


def _added(options: argparse.Namespace, report: OnProgress) -> dict[str, Any]:
    with node_or_store(options) as (client, store):
        if client is not None:
            return client.make_model(
                options.family, options.name, size=options.size, seed=options.seed, on_progress=report
            )
        downloads = downloads_of(options)
        opened = made_source(options.family, options.size, options.seed, downloads, options.name, report)
        return add_to_store(options, store, opened, report)


def _written(options: argparse.Namespace, report: OnProgress) -> dict[str, Any]:
    if options.name is not None:
        raise AccelError("usage", "--name is for what is added, and --out only writes a folder", "Leave one out.")
    folder = absolute(options.out_folder)
    write_made(folder, options.family, options.size, options.seed, report)
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {"path": str(folder), "family": options.family, "model_size": options.size, "weights": "random",
            "size": written}  # fmt: skip

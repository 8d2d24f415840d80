"""`config show` and `config path`. They read what a node would read, and need no node."""

from __future__ import annotations

import argparse
from typing import Any

from .. import config
from .output import console, print_json, safe, table

#: What is not shown: the join token holds the cluster's key, and the other lets one in at the IPFS daemon.
_SECRET = {"join": "(a token, not shown)", "kubo_auth": "(set, not shown)"}
#: What stands for a setting that nobody made, where there is a word for it.
_UNSET = {"backends": "auto"}


def show(options: argparse.Namespace) -> None:
    """What `start` would run with, given the same options here and now."""
    folder = config.find_data_dir(options.data_dir)
    given = {flag: getattr(options, flag, None) for flag in config.FIELDS}
    found = [folder, *config.explain(given, folder.value).values()]
    if options.json:
        print_json([{"setting": each.key, "value": _shown(each), "origin": each.origin, "source": each.source}
                    for each in found])  # fmt: skip
        return
    rows = table("setting", "value", "from")
    for each in found:
        value = _text(_shown(each), _UNSET.get(each.key, "not set"))
        rows.add_row(each.key, value, f"[dim]{each.origin}[/]" if not each.source else safe(each.source))
    console().print(rows)


def path(options: argparse.Namespace) -> None:
    """Where the file stands, or would stand."""
    file = config.Paths(config.find_data_dir(options.data_dir).value).toml
    if options.json:
        print_json({"path": str(file), "exists": file.exists()})
    else:
        print(file)


def _shown(found: config.Found) -> Any:
    return _SECRET.get(found.key, config.plain(found.value)) if found.value is not None else None


def _text(value: Any, unset: str) -> str:
    """As it would be written in the file."""
    if value is None:
        return f"[dim]{unset}[/]"
    if isinstance(value, list):
        return safe(", ".join(map(str, value))) if value else "[dim]none[/]"
    return safe(str(value).lower() if isinstance(value, bool) else value)

"""`doctor`: what was found, what is missing, what to do. It runs where nothing else does, so it imports little.

What takes long, such as making each backend compute, is looked at all at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from ...protocols.errors import AccelError, docs_of
from ..config import Config, load
from . import check_kubo, check_machine, check_node, check_software
from .check import Check
from .output import console, print_json, progress, safe, table

_AT_ONCE = 4
_SOFTWARE = frozenset({*check_software.REQUIRED, *check_software.ENGINES})

Look = tuple[str, Callable[[], list[Check]]]


def doctor(options: argparse.Namespace) -> int:
    """Exit status 1 when something that is required is not in order."""
    checks = _all(options)
    failed = any(check.required and not check.ok for check in checks)
    if options.json:
        print_json({"ok": not failed, "checks": [check.as_dict() for check in checks]})
    elif check_software.installed("rich"):
        _show(checks)
    else:
        print("\n".join(f"{each.mark}  {each.name}: {each.detail}  {each.code}  {each.fix}" for each in checks))
    return int(failed)


def _all(options: argparse.Namespace) -> list[Check]:
    """All that is looked at, in the order in which it is shown."""
    config, configuration = _configuration(options.data_dir)
    looks: list[Look] = [
        ("Python", lambda: [check_software.python()]),
        ("libraries", check_software.libraries),
        *check_software.backends(),
        ("clock", lambda: [check_machine.clock(), configuration]),
    ]
    if config is not None:
        looks.append(("IPFS daemon", partial(check_kubo.daemon, config)))
        looks.append(("node", partial(_configured, config)))
    return _look(looks, quiet=options.json or not sys.stderr.isatty() or not check_software.installed("rich"))


def _configuration(data_dir: Path | None) -> tuple[Config | None, Check]:
    try:
        config = load({}, data_dir)
    except AccelError as error:
        return None, Check("configuration", False, True, error.message, error.code, error.hint)
    kept = config.paths.toml
    return config, Check("configuration", True, True, str(kept if kept.exists() else "defaults"))


def _look(looks: list[Look], *, quiet: bool) -> list[Check]:
    with progress("", quiet=quiet) as report, ThreadPoolExecutor(_AT_ONCE) as pool:
        running = {pool.submit(look): what for what, look in looks}
        left = list(running.values())
        report("looking at", 0, 0, ", ".join(left))
        for done in as_completed(running):
            left.remove(running[done])
            report("looking at", 0, 0, ", ".join(left))
        return [check for future in running for check in future.result()]


def _configured(config: Config) -> list[Check]:
    told = check_node.node(config)
    runs = told[0].ok
    return [
        check_machine.memory(config),
        check_machine.disk(config),
        check_machine.data_folder(config, node_runs=runs),
        check_machine.socket_folder(config),
        *([] if runs else [check_machine.port(address) for address in config.listen]),
        *([] if runs else check_machine.clients_port(config)),
        check_machine.multicast(config),
        check_machine.log(config),
        *told,
    ]


def _show(checks: list[Check]) -> None:
    """A line a check; libraries that are in order take one together."""
    rows = table("", "what", "found", "what to do")
    sound = [check for check in checks if check.name in _SOFTWARE and check.ok]
    for check in checks:
        if check in sound:
            if check is sound[0]:
                rows.add_row("[green]ok[/]", "libraries", f"{len(sound)} in order", "")
            continue
        colour = {"ok": "green", "no": "red"}.get(check.mark, "yellow")
        more = f"\n[dim]{docs_of(check.code)}[/]" if check.code else ""
        rows.add_row(f"[{colour}]{check.mark}[/]", safe(check.name), safe(check.detail), safe(check.fix) + more)
    console().print(rows)

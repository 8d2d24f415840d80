"""`families`: which families of models really run on which backends of this machine, each of them tried."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from ...backends import registry
from ...backends.matrix import FAILED, FAMILIES, NOT_HERE, REAL, UNTESTED, Cell, try_families
from ...protocols.errors import AccelError
from .output import console, count_progress, print_json, safe

#: The columns; one that no backend of this version has is untested.
BACKENDS: Final = ("cpu", "openvino", "cuda")
_COLOURS: Final = {REAL: "green", FAILED: "red", NOT_HERE: "yellow", UNTESTED: "yellow"}


def families(options: argparse.Namespace) -> None:
    backends = _chosen(options.backends, BACKENDS, "backend")
    wanted = _chosen(options.families, FAMILIES, "family")
    cells: list[Cell] = []
    with count_progress("families", len(backends) * len(wanted), quiet=options.json) as report:

        def done(cell: Cell) -> None:
            cells.append(cell)
            report(len(cells), sum(each.status == FAILED for each in cells))

        for backend in backends:
            _fill(backend, wanted, done)
    if options.json:
        print_json([cell.as_dict() for cell in cells])
    else:
        _show(cells, backends, wanted)
    if any(cell.status == FAILED for cell in cells):
        sys.exit(1)


def _chosen(given: list[str], known: tuple[str, ...], what: str) -> list[str]:
    if unknown := [name for name in given if name not in known]:
        raise AccelError("usage", f"no {what} is called {unknown[0]!r}", f"There are {', '.join(known)}.")
    return given or list(known)


def _fill(backend: str, wanted: list[str], done: Any) -> None:
    if backend == "cuda":
        _all(UNTESTED, "there is no backend for CUDA in this version", backend, wanted, done)
    elif backend in registry.available():
        try_families(backend, wanted, done)
    else:
        _all(NOT_HERE, "its library is not installed: ipfs-accel-node[all] brings it", backend, wanted, done)


def _all(status: str, note: str, backend: str, wanted: list[str], done: Any) -> None:
    for family in wanted:
        done(Cell(family, backend, status, note=note))


def _show(cells: list[Cell], backends: list[str], wanted: list[str]) -> None:
    from rich.table import Table

    table = Table("family", "task", *backends, box=None, pad_edge=False)
    by_place = {(cell.family, cell.backend): cell for cell in cells}
    for family in wanted:
        row = [by_place[family, backend] for backend in backends]
        table.add_row(family, next((cell.task for cell in row if cell.task), ""), *map(_told, row))
    out = console()
    out.print(table)
    for note in dict.fromkeys(f"{cell.backend}: {cell.note}" for cell in cells if cell.note):
        out.print(f"[dim]{safe(note)}[/]", soft_wrap=True)


def _told(cell: Cell) -> str:
    ran = f" [dim]{safe(cell.device)} {safe(cell.precision)}[/]" if cell.status == REAL else ""
    return f"[{_COLOURS[cell.status]}]{cell.status}[/]{ran}" + (f" {cell.code}" if cell.code else "")

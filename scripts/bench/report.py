"""What the benches share: figures with a floor, shown as a table or as JSON, and random models to carry about."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Figure:
    """One measured value. `floor` is the worst that is accepted, None where nothing is promised."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    goal: float | None = None
    more_is_better: bool = False

    @property
    def passed(self) -> bool:
        if self.floor is None:
            return True
        return self.value >= self.floor if self.more_is_better else self.value <= self.floor


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def finish(name: str, figures: Sequence[Figure], as_json: bool, *, table: bool = True) -> int:
    """Prints the figures, unless the caller showed a table of its own; the exit status: 1 where a floor is broken."""
    if as_json:
        shown = [{**asdict(figure), "passed": figure.passed} for figure in figures]
        print(json.dumps({"bench": name, "machine": machine(), "figures": shown}))
    elif table:
        show_rows(name, ("figure", "value", "floor", "goal", ""), [_row(figure) for figure in figures])
    return 0 if all(figure.passed for figure in figures) else 1


def machine() -> dict[str, str | int | None]:
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}


def median_and_p99(values: Sequence[float]) -> tuple[float, float]:
    return statistics.median(values), sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def make_random_model(folder: Path, size: int) -> Path:
    """A folder of `size` random bytes laid out as a model; nothing can run it, everything can carry it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "random-bytes"}))
    with (folder / "model.safetensors").open("wb") as file:
        for start in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - start)))
    return folder


def note(text: str) -> None:
    """Says how far the bench is, beside its results."""
    print(text, file=sys.stderr, flush=True)


def show_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    where = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}"
    table = Table(title=f"{title} ({where})", title_justify="left", header_style="cyan", box=None, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def _row(figure: Figure) -> list[str]:
    bounds = [f"{limit:g}" if limit is not None else "" for limit in (figure.floor, figure.goal)]
    verdict = "" if figure.floor is None else "ok" if figure.passed else "[red]worse than the floor[/]"
    return [figure.name, f"{figure.value:.3g} {figure.unit}", *bounds, verdict]

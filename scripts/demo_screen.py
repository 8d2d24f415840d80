"""How the demo looks: one line a step, a spinner while it runs, tables of what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.status import Status
from rich.table import Table


class Step:
    """The step that runs: what it waits for, and what it found."""

    def __init__(self, what: str, status: Status) -> None:
        self._what = what
        self._status = status
        self.found = ""

    def waits(self, text: str) -> None:
        self._status.update(f"{self._what}: {text}")


class Screen:
    """Prints to stderr when stdout is for a program."""

    def __init__(self, *, to_stderr: bool) -> None:
        self.console = Console(stderr=to_stderr, highlight=False)
        self.current = "the start"

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Runs one step; when it raises, `current` still says which one it was."""
        self.current = what
        began = time.monotonic()
        with self.console.status(what) as status:
            step = Step(what, status)
            yield step
        found = f"  [dim]{step.found}[/]" if step.found else ""
        self.line(f"[green]✓[/] {what}  [dim]{time.monotonic() - began:.1f} s[/]{found}")

    def banner(self, title: str, text: str) -> None:
        self.console.print(Panel(text, title=title, border_style="bold red", title_align="left"))

    def failed(self, error: object) -> None:
        self.console.print(f"[bold red]✗ {self.current}[/]")
        self.console.print(str(error), markup=False, soft_wrap=True)

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def speeds(self, offers: Sequence[Mapping[str, Any]]) -> None:
        """Who was measured how fast, as `model ls --json` says it."""
        rows = _table("measured", "node", "backend", "precision", ">fixed", ">each KiB", ">runs", ">spread")
        for offer in offers:
            rows.add_row(
                offer["node_name"],
                offer["backend"],
                offer["precision"],
                f"{offer['fixed_ms']:.2f} ms",
                f"{offer['per_kib_ms']:.1f} ms",
                str(offer["count"]),
                f"{offer['spread']:.0%}",
            )
        self.console.print(rows)

    def route(self, report: Mapping[str, Any]) -> None:
        """Why a job went where it went, as `run --explain --json` says it."""
        rows = _table("the choice", "candidate", "backend", ">predicted", ">round trip", ">wait", ">compute")
        for candidate in report["route"]["candidates"]:
            parts = candidate["parts"]
            chosen = candidate["node"] == report["node"] and candidate["backend"] == report["backend"]
            rows.add_row(
                f"{'[green]→[/] ' if chosen else '  '}{candidate['node_name']}",
                candidate["backend"],
                *(f"{seconds * 1e3:.1f} ms" for seconds in _seconds(candidate["predicted_s"], parts)),
            )
        self.console.print(rows)
        self.line(f"  [dim]why:[/] {report['route']['reason']}\n")

    def steps(self, steps: Sequence[Mapping[str, Any]], seconds: float) -> None:
        """How long each step took; those that do not count are in parentheses."""
        rows = _table("the first minutes", "where", "what", ">seconds")
        for step in steps:
            took = f"{step['seconds']:.1f}"
            rows.add_row(step["where"], step["step"], took if step["counted"] else f"({took})")
        self.console.print(rows)
        self.line(f"[bold]{seconds:.1f} s in all[/], without installation and download.")

    def similarities(self, found: Mapping[str, float], expected: Mapping[str, float] | None) -> None:
        rows = _table("similarity", "texts", ">cosine", ">expected")
        for pair, value in found.items():
            rows.add_row(pair, f"{value:.3f}", f"{expected[pair]:.3f}" if expected else "not checked")
        self.console.print(rows)

    def served(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Who served how many of a burst of jobs."""
        rows = _table("who served them, means", "node", "backend", ">jobs", ">computing", ">in all")
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for report in reports:
            groups.setdefault((report["node_name"], report["backend"]), []).append(report)
        for (node, backend), group in sorted(groups.items()):
            means = [sum(each[key] for each in group) / len(group) * 1e3 for key in ("compute_s", "total_s")]
            rows.add_row(node, backend, str(len(group)), *(f"{mean:.1f} ms" for mean in means))
        self.console.print(rows)


def _seconds(predicted: float, parts: Mapping[str, float]) -> list[float]:
    return [predicted, parts["round_trip"], parts["wait"], parts["compute"]]


def _table(title: str, *columns: str) -> Table:
    """Columns whose name begins with `>` are aligned to the right."""
    made = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold", header_style="cyan")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return made

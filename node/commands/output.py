"""How commands print: one JSON document for programs, `rich` for people, progress on a terminal's stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OnProgress = Callable[[str, int, int, str], None]


def safe(text: object) -> str:
    """A text of somebody else's, as it is: no markup of ours, no control characters for the terminal."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else "�" for letter in str(text)))


def print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False), flush=True)


def plain(value: Any) -> Any:
    """JSON has no arrays: nested lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def table(*columns: str, title: str | None = None) -> Table:
    """Columns whose name begins with `>` are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="bold cyan")
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[OnProgress]:
    """A bar with rate and time left while inside; nothing where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda _state, _done, _total, _note: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(safe(what), total=None)

        def report(state: str, done: int, total: int, _note: str) -> None:
            bar.update(task, description=safe(f"{state} {what}"), completed=done, total=total or None)

        yield report


@contextmanager
def count_progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Called with how many are done and failed: a bar with the rate and the time left; nothing where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda _done, _failed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(safe(what)), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[notes]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, notes="")

        def report(done: int, failed: int) -> None:
            notes = f"{bar.tasks[0].speed or 0:.0f}/s" + (f", [red]{failed} failed[/]" if failed else "")
            bar.update(task, completed=done, notes=notes)

        yield report


def size(count: float) -> str:
    """Bytes for a person: `91.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{minutes} min" if hours < 2 else f"{hours} h {minutes % 60} min"


def short_peer(peer_id: str) -> str:
    return f"…{peer_id[-8:]}"


def state_style(state: str) -> str:
    colour = {"ready": "green", "failed": "red", "unknown": "dim"}.get(state, "yellow")
    return f"[{colour}]{safe(state)}[/{colour}]"

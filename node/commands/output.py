"""How commands print: one JSON document for programs, `rich` for people, progress on a terminal's stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OnProgress = Callable[[str, int, int, str], None]

#: States of progress that are counted in bytes; all others take the time they take.
BYTE_STATES: Final = frozenset({"adding", "checking", "downloading", "exporting", "fetching", "receiving", "verifying"})
#: States that are over before anybody has read of them.
_PASSING: Final = frozenset({"checking", "listing", "storing"})
_MOST_LINES: Final = 16


def safe(text: object) -> str:
    """A text of somebody else's, as it is: no markup of ours, no control characters for the terminal."""
    from rich.markup import escape

    return escape(printable(str(text)))


def printable(text: str) -> str:
    """Without control characters, where no markup is read."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)


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
    """Columns whose name begins with `>` are aligned to the right and never broken."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(
        box=SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="cyan",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return made


def add_line(rows: Table, *cells: str) -> None:
    """A row that keeps to one line: what is too long for its column is cut short."""
    from rich.text import Text

    lines = [Text.from_markup(cell, overflow="ellipsis") for cell in cells]
    for line in lines:
        line.no_wrap = True
    rows.add_row(*lines)


@contextmanager
def progress(what: str, *, quiet: bool) -> Iterator[OnProgress]:
    """Tells on stderr what goes on while inside: moving on a terminal, else a plain line a state."""
    if quiet:
        yield lambda _state, _done, _total, _note: None
    elif sys.stderr.isatty():
        from .bars import Bars

        with Bars(what) as bars:
            yield bars.report
    else:
        yield _plainly(what)


def _plainly(what: str) -> OnProgress:
    told: set[str] = set()

    def report(state: str, _done: int, total: int, note: str) -> None:
        if state not in told | _PASSING and len(told) < _MOST_LINES:
            told.add(state)
            much = f", {size(total)}" if state in BYTE_STATES and total else ""
            line = f"{state} {what}".rstrip() + much + (f", {note}" if note else "")
            print(printable(line), file=sys.stderr, flush=True)

    return report


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


def count(number: int, what: str) -> str:
    """`1 peer`, `2 peers`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """For a person: `3.3 ms`, `1.5 s`, `12 s`, `5 min`, `3 h 20 min`, `2 d 4 h`."""
    if 0 < seconds < 5e-5:
        return "<0.1 ms"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{minutes} min" if hours < 2 else f"{hours} h {minutes % 60} min"


def short_peer(peer_id: str) -> str:
    return f"…{peer_id[-8:]}"


def weights_note(report: dict[str, Any]) -> str:
    """What is to be said of a result that means nothing; empty for any other."""
    return " · [yellow]weights: random[/]" if report.get("weights") == "random" else ""


def state_style(state: str) -> str:
    colour = {"ready": "green", "failed": "red", "unknown": "dim"}.get(state, "yellow")
    return f"[{colour}]{safe(state)}[/{colour}]"

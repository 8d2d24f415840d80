"""Progress on a terminal: bytes with rate and time left where bytes move, else a spinner with the seconds it takes."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from .output import BYTE_STATES, duration, safe


class _For(ProgressColumn):
    """Another column, shown for bytes only, or for everything else only."""

    def __init__(self, column: ProgressColumn, *, moving: bool) -> None:
        super().__init__()
        self._column = column
        self._moving = moving

    def render(self, task: Task) -> RenderableType:
        return self._column.render(task) if task.fields["moving"] is self._moving else Text()


class _Seconds(ProgressColumn):
    def render(self, task: Task) -> Text:
        seconds = int(task.elapsed or 0)
        return Text(f"{seconds} s" if seconds < 120 else duration(seconds), style="dim")


class Bars:
    """One line that tells what goes on now. Use it in a `with` block; it leaves nothing behind."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._state = ""
        self._task: TaskID | None = None
        moving = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
        self._progress = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}"),
            *(_For(column, moving=True) for column in moving),
            _For(_Seconds(), moving=False),
            console=Console(stderr=True),
            transient=True,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, state: str, done: int, total: int, note: str) -> None:
        moving = state in BYTE_STATES
        told = safe(f"{state} {self._what}".rstrip())
        if note and state != "fetching":  # whose note is the rate and the time left, which have columns here
            told += f" [dim]{safe(note)}[/]"
        if self._task is None or state != self._state:
            self._begin(state, told, moving=moving)
        else:
            self._progress.update(self._task, description=told)
        if self._task is not None and moving:
            self._progress.update(self._task, completed=done, total=total or None)

    def _begin(self, state: str, told: str, *, moving: bool) -> None:
        """A state of its own has a clock and a rate of its own."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._state = state
        self._task = self._progress.add_task(told, total=None, moving=moving)

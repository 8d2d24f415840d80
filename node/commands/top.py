"""`top`: the node, its peers, models and jobs, again and again, until q, Ctrl-C or `--count`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from ...protocols.errors import AccelError, ErrorCode
from ..client import Client
from . import panels
from .output import console, print_json, safe
from .reaching import client_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_SECRET = "token"  # noqa: S105 — the name of what is left out
_ANSWER_TIMEOUT_S = 5.0
_LONGEST_INTERVAL_S = 86_400

#: Waits so many seconds; true when the person wants it to end.
Pause = Callable[[float], bool]


def top(options: argparse.Namespace) -> None:
    if not 0 < options.interval <= _LONGEST_INTERVAL_S:
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"--interval {options.interval:g} is no time between two looks",
            f"Give seconds, more than 0 and at most {_LONGEST_INTERVAL_S}.",
        )
    if options.count is not None and options.count < 1:
        raise AccelError(ErrorCode.BAD_INPUT, f"--count {options.count} is no number of looks", "Give 1 or more.")
    moving = sys.stdout.isatty() and not options.json
    keys = _keys() if moving else nullcontext(_sleep)
    with client_of(options) as client, keys as pause, suppress(KeyboardInterrupt):
        looks = _looks(client, options.interval, options.count, pause, steady=moving)
        if moving:
            _show_moving(looks)
        else:
            for facts, _ in looks:
                print_json(facts) if options.json else console().print(draw(facts))


def look(client: Client) -> dict[str, Any]:
    """All that `top` shows, and nothing that would let somebody join the cluster."""
    status = client.status(timeout=_ANSWER_TIMEOUT_S)
    status.pop(_SECRET, None)
    return {
        "at": time.time(),
        "status": status,
        "peers": client.peers(timeout=_ANSWER_TIMEOUT_S),
        "models": client.models(timeout=_ANSWER_TIMEOUT_S),
    }


def draw(facts: dict[str, Any], footer: str = "") -> RenderableType:
    """One screen: only what there is something to say of. `footer` is markup."""
    from rich.console import Group
    from rich.text import Text

    status = facts["status"]
    parts: list[RenderableType] = [Text.from_markup(line) for line in panels.header(status)]
    if status["backends"]:
        parts.append(panels.backends(status))
    if status["running"]:
        parts.append(panels.jobs(status["running"], status["open"]))
    if facts["peers"]:
        parts.append(panels.peers(facts["peers"]))
    if facts["models"]:
        parts.append(panels.models(facts["models"], whole=False))
    if footer:
        parts.append(Text.from_markup(footer))
    return Group(*parts)


def _looks(
    client: Client, interval: float, number: int | None, pause: Pause, *, steady: bool
) -> Iterator[tuple[dict[str, Any], str]]:
    """What is seen, and why it is an old view; a node that goes away ends the looks unless they are `steady`."""
    facts, lost, looked = look(client), "", 1
    while True:
        yield facts, lost
        if (number is not None and looked >= number) or pause(interval):
            return
        try:
            facts, lost = look(client), ""
        except AccelError as error:
            if not steady:
                raise
            lost = error.message
        looked += 1


def _show_moving(looks: Iterator[tuple[dict[str, Any], str]]) -> None:
    from rich.live import Live

    with Live(console=console(), screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for facts, lost in looks:
            live.update(draw(facts, f"[red]{safe(lost)}[/]" if lost else "[dim]q ends[/]"), refresh=True)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextmanager
def _keys() -> Iterator[Pause]:
    """A pause that q ends for good; keys are not shown meanwhile. Without a keyboard it is a pause only."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    import select
    import termios
    import tty

    def pause(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([keyboard], [], [], left)[0]:
                typed = os.read(keyboard, 64)
                if not typed or b"q" in typed.lower():
                    return True
        return False

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield pause
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

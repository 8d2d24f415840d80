"""Named places where a job of the `echo` task waits for a file, so that a test can act at an exact stage.

No other task can be held, and only where the owner started the echo backend. A hold writes `<name>.held` and goes on
when `<name>.go` appears in the same folder.
"""

from __future__ import annotations

from pathlib import Path

import trio

from ..protocols.inference import Request

_LONGEST_S = 60.0
_LOOK_EVERY_S = 0.01


async def hold(request: Request, name: str, *, allowed: bool) -> None:
    """Waits, at most a minute, when this is an echo job that asks to be held here."""
    if not allowed or request.task != "echo" or request.params.get("hold") != name:
        return
    folder = Path(str(request.params.get("hold_dir", ".")))
    await trio.Path(folder / f"{name}.held").touch()
    with trio.move_on_after(_LONGEST_S):
        while not await trio.Path(folder / f"{name}.go").exists():
            await trio.sleep(_LOOK_EVERY_S)

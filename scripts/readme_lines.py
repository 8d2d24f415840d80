"""The command lines of a section of the README, and the machine that each is for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

_BLOCK = re.compile(r"(?P<before>[^\n]+)\n\n```\n(?P<lines>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One line of a code block. `place` is the machine that the sentence before the block names first."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def lines_of(readme: str, section: str, places: tuple[str, ...]) -> list[Line]:
    """The section's lines in their order. Raises ValueError for a block that names none of `places` before it."""
    _, found, rest = readme.partition(f"\n## {section}\n")
    if not found:
        raise ValueError(f"the README has no section {section!r}")
    lines: list[Line] = []
    for block in _BLOCK.finditer(rest.partition("\n## ")[0]):
        place = re.search("|".join(places), block["before"])
        if place is None:
            raise ValueError(f"the README does not say where this runs: {block['lines']}")
        words = [shlex.split(line, comments=True) for line in block["lines"].splitlines()]
        lines += [Line(place[0], tuple(each)) for each in words if each]
    return lines

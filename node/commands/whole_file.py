"""What `--file` gives. It stands alone because parsing the command line must import nothing heavy."""

from __future__ import annotations


class WholeFile:
    """A file that is one input, as a text or as bytes by what the task takes."""

    def __init__(self, path: str) -> None:
        self.path = path

"""From token ids to text, token by token: what is certain is given out at once, what is not is held back. Pure.

    add(id) ─► text so far ─► is a stop text in it? ─► cut there, ended
                          └─► could its end become a stop text, or half a character? ─► held back
                          └─► the rest is given out

The same ids always give the same text, wherever they are fed again: so an attempt that goes on from another's tokens
knows what was given out, and nothing comes twice or is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class TextStream:
    """The text of one output.

    Args:
        step: takes a token id and gives the text that it completes, or None (a streaming detokenizer).
        stops: texts that end the output; they are not part of it.
    """

    def __init__(self, step: Callable[[int], str | None], stops: Sequence[str] = ()) -> None:
        self._step = step
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._decided = 0
        self.token_ids: list[int] = []
        self.text = ""
        self.stopped = False

    def add(self, token_id: int) -> None:
        """Takes the next token. `stopped` is true once a stop text has appeared; `text` then ends before it."""
        self.token_ids.append(token_id)
        piece = self._step(token_id)
        if piece:
            # A stop text that began before this piece can reach into it.
            begin = max(0, len(self.text) - self._longest + 1)
            self.text += piece
            self._cut(begin)

    def take(self) -> str:
        """What is certain and was not taken before."""
        return self._give(len(self.text) if self.stopped else len(self.text) - self._uncertain())

    def finish(self, whole: str) -> str:
        """The rest: nothing more comes, so nothing is uncertain. `whole` is the text of all ids at once."""
        if not self.stopped and whole.startswith(self.text):
            begin = max(0, len(self.text) - self._longest + 1)
            self.text = whole
            self._cut(begin)
        return self._give(len(self.text))

    def skip(self, characters: int) -> None:
        """What an earlier attempt gave out is not given out again, not even what only its `finish` knew."""
        self._decided = characters

    def _give(self, end: int) -> str:
        begin, self._decided = self._decided, max(self._decided, end)
        return self.text[begin : self._decided]

    def _cut(self, begin: int) -> None:
        places = [place for stop in self._stops if (place := self.text.find(stop, begin)) >= 0]
        if places:
            self.text, self.stopped = self.text[: min(places)], True

    def _uncertain(self) -> int:
        """Characters at the end that a stop text could begin with."""
        for length in range(min(self._longest - 1, len(self.text)), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stops):
                return length
        return 0

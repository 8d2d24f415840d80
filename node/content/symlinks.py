"""Whether a model's symbolic links stay inside it: decided by its own entries, before anything is on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from graphlib import CycleError, TopologicalSorter
from typing import Final, NoReturn

from ...protocols.errors import AccelError, ErrorCode

#: As many links as Linux follows in one path.
_MAX_FOLLOWED: Final = 40
#: Parts of paths that are looked at for all links together.
_MAX_STEPS: Final = 2_000_000


def check_links(links: Mapping[str, str], files: Set[str], folders: Set[str]) -> None:
    """All paths are of the model's folder, which is "" itself and among `folders`.

    Raises AccelError hostile-content for a link that is absolute, leads out, to nothing or in a circle.
    """
    holders: dict[str, set[str]] = {folder: {_parent(folder)} - {folder} for folder in folders}
    resolver = _Resolver(links, files, folders)
    for path, target in links.items():
        end = resolver.end(path)
        if end is None:
            _refuse(f"the link {path[:60]} to {target[:60]!r} leads out of the folder, to nothing or in a circle")
        if end in folders:
            holders[end].add(_parent(path))
    _check_circles(holders)


def _check_circles(holders: Mapping[str, Iterable[str]]) -> None:
    """Refuses folders that one could walk down for ever: each is given with those it is in, or linked from."""
    try:
        TopologicalSorter(holders).prepare()
    except CycleError as error:
        _refuse(f"a link leads back to a folder that it is in: {error.args[1][0][:60] or 'the model itself'}")


class _Resolver:
    def __init__(self, links: Mapping[str, str], files: Set[str], folders: Set[str]) -> None:
        self._links = links
        self._files = files
        self._folders = folders
        self._steps_left = _MAX_STEPS

    def end(self, path: str) -> str | None:
        """Where a link ends, as the system would follow it; None where it does not end inside the folder."""
        at: str | None = path
        steps: list[str] = []
        for _ in range(_MAX_FOLLOWED):
            if at is None or at not in self._links:
                break
            if self._links[at].startswith("/"):
                return None
            steps += reversed(self._links[at].split("/"))
            at = self._walk(_parent(at), steps)
        return at if at in self._files or at in self._folders else None

    def _walk(self, at: str, steps: list[str]) -> str | None:
        """Takes steps from the folder `at` until none is left, or there is a link to follow; None for a wrong one."""
        while steps:
            step = steps.pop()
            self._steps_left -= 1
            if self._steps_left < 0:
                _refuse("the links have too many parts")
            if at not in self._folders or (step == ".." and not at):
                return None
            if step not in ("", "."):
                at = _parent(at) if step == ".." else f"{at}/{step}".removeprefix("/")
            if at in self._links:
                break
        return at


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _refuse(why: str) -> NoReturn:
    raise AccelError(ErrorCode.HOSTILE_CONTENT, f"refused: {why}", "The content is not a sound UnixFS folder.")

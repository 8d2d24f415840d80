"""What one IPFS peer wants of this node, and what this node asked of it: bookkeeping without input or output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .bitswap import Presence, Want, WantlistEnded

#: What Kubo keeps of one peer too; it leaves out what is over it, and so does this.
MAX_WANTS: Final = 1024
DIGEST: Final = 32


class Ledger:
    """The wants of a peer, in the order in which they came, at most `MAX_WANTS`."""

    def __init__(self) -> None:
        self._wants: dict[bytes, Want] = {}
        self._listed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._wants)

    def hear(self, said: Want | WantlistEnded) -> None:
        if isinstance(said, WantlistEnded):
            self._end_list(full=said.full)
        elif said.cancel:
            self._wants.pop(said.cid, None)
        else:
            self._want(said)

    def take(self) -> Want | None:
        """The next one to answer; it is not wanted any more then."""
        return self._wants.pop(next(iter(self._wants))) if self._wants else None

    def _want(self, want: Want) -> None:
        """Who wants a block is not content to hear that it is there, whatever order the two were asked in."""
        known = self._wants.get(want.cid)
        if known is None and len(self._wants) >= MAX_WANTS:
            return
        if known is None or known.have:
            self._wants[want.cid] = want
        self._listed.add(want.cid)

    def _end_list(self, *, full: bool) -> None:
        if full:
            self._wants = {cid: want for cid, want in self._wants.items() if cid in self._listed}
        self._listed.clear()


class Asked:
    """Blocks that one fetch asked of a peer and has no answer to. They go by digest: blocks come without a CID."""

    def __init__(self, cids: Iterable[bytes]) -> None:
        """`cids` end in SHA-256 digests."""
        self._waiting: dict[bytes, list[bytes]] = {}
        for cid in cids:
            self._waiting.setdefault(cid[-DIGEST:], []).append(cid)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._waiting

    def cids(self) -> list[bytes]:
        return [cid for cids in self._waiting.values() for cid in cids]

    def came(self, digest: bytes) -> list[bytes]:
        """The CIDs that a block answers; none for one that nobody asked for."""
        return self._waiting.pop(digest, [])

    def lacking(self, presence: Presence) -> list[bytes]:
        """The CIDs that the peer says it has not."""
        return [] if presence.has else self._waiting.pop(presence.cid[-DIGEST:], [])

"""Where peers were reached before, kept on disk: a node that restarts finds its cluster again without any help."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_MAX_PEERS: Final = 256
_MAX_ADDRESSES: Final = 8


class AddressBook:
    """Addresses by peer id, the most recently linked last; bounded both ways."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._book: dict[str, list[str]] = self._read()

    def all(self) -> dict[str, list[str]]:
        return {peer_id: list(addresses) for peer_id, addresses in self._book.items()}

    def put(self, peer_id: str, addresses: list[str]) -> None:
        """Notes a peer's addresses that end in its peer id; others are not worth keeping."""
        sound = [address for address in addresses if address.endswith(f"/p2p/{peer_id}")][:_MAX_ADDRESSES]
        if not sound or self._book.get(peer_id) == sound:
            return
        self._book.pop(peer_id, None)
        self._book[peer_id] = sound
        while len(self._book) > _MAX_PEERS:
            del self._book[next(iter(self._book))]
        self._write()

    def forget(self, peer_id: str) -> None:
        if self._book.pop(peer_id, None) is not None:
            self._write()

    def _write(self) -> None:
        aside = self._path.with_suffix(".tmp")
        try:
            aside.write_text(json.dumps(self._book, indent=1))
            os.replace(aside, self._path)
        except OSError as error:
            log.warning("the address book cannot be written: %s", error)

    def _read(self) -> dict[str, list[str]]:
        try:
            kept = json.loads(self._path.read_text())
            return {str(peer_id): [str(address) for address in addresses] for peer_id, addresses in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.warning("the address book is begun anew: %s", error)
            return {}

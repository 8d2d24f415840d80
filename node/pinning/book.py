"""The cluster's pins as this node knows them, on disk: what it has acknowledged survives whatever happens to it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgpack
import trio

from ...protocols.errors import AccelError, ErrorCode, ProtocolError
from ...protocols.pins import EVERYWHERE, PinChange, PinSet, SignedChange, is_replicas, open_change, sign
from ..content.disk import coded_errors, write_whole

log = logging.getLogger(__name__)

#: Pins that there may be at once; the set keeps twice as many changes, removals among them.
MAX_PINS: Final = 2048
_VERSION: Final = 1
_DIGEST: Final = 32


def check_replicas(minimum: int, maximum: int) -> None:
    """Raises AccelError bad-input."""
    if not is_replicas(minimum, maximum):
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"{minimum}:{maximum} nodes cannot hold a pin",
            "Say how many at least and at most, like --replicas 2:3; without it every node holds it.",
        )


class PinBook:
    """Merges changes of pins, signs this node's own, and keeps them: `sha256 | msgpack [1, [sealed changes]]`."""

    def __init__(self, path: Path, *, cluster_key: bytes, signing_key: bytes) -> None:
        self._path = path
        self._cluster_key = cluster_key
        self._signing_key = signing_key
        self._writing = trio.Lock()
        self.pins = PinSet(self._read())
        #: Told of changes that were new here, after they are on disk.
        self.listeners: list[Callable[[list[SignedChange]], None]] = []

    async def pin(
        self, cid: bytes, *, name: str = "", size: int = 0, minimum: int = 1, maximum: int = EVERYWHERE
    ) -> PinChange:
        """Pins a model for the whole cluster; a pin that is there gets the new numbers.

        Raises:
            AccelError: bad-input, too-large when there are too many pins, disk-full.
        """
        check_replicas(minimum, maximum)
        if self.pins.get(cid) is None and len(self.pins.pins()) >= MAX_PINS:
            raise AccelError(ErrorCode.TOO_LARGE, f"the cluster has {MAX_PINS} pins", "Remove one: pin rm … --cluster")
        return await self._change(PinChange(cid, self._now(), minimum=minimum, maximum=maximum, name=name, size=size))

    async def unpin(self, cid: bytes) -> PinChange:
        """Removes a pin everywhere. Raises AccelError unknown-model where the cluster has none of that model."""
        pin = self.pins.get(cid)
        if pin is None:
            raise AccelError(
                ErrorCode.UNKNOWN_MODEL, "the cluster has no pin of this model", "See `ipfs-accel-node pin ls`."
            )
        await self._change(PinChange(cid, self._now(), removed=True, name=pin.name, size=pin.size))
        return pin

    async def take(self, sealed: Iterable[Any]) -> int:
        """Merges what a peer told; how much of it was new.

        Raises:
            ProtocolError: a change that no member signed, or that is from the future. What came before it is kept.
        """
        new: list[SignedChange] = []
        try:
            for each in sealed:
                signed = open_change(each, cluster_key=self._cluster_key, now_us=_now_us())
                if self.pins.merge(signed):
                    new.append(signed)
        finally:
            if new:
                await self._keep(new)
        return len(new)

    def _now(self) -> int:
        return self.pins.next_time(_now_us())

    async def _change(self, change: PinChange) -> PinChange:
        signed = sign(change, cluster_key=self._cluster_key, signing_key=self._signing_key)
        self.pins.merge(signed)
        await self._keep([signed])
        return change

    async def _keep(self, new: list[SignedChange]) -> None:
        with trio.CancelScope(shield=True):  # what is merged is told to others, and must not be lost here
            async with self._writing:
                await trio.to_thread.run_sync(self._write, [signed.sealed for signed in self.pins.changes()])
        for listener in self.listeners:
            listener(new)

    def _write(self, sealed: list[bytes]) -> None:
        packed = msgpack.packb([_VERSION, sealed])
        with coded_errors():
            write_whole(self._path, hashlib.sha256(packed).digest() + packed)

    def _read(self) -> list[SignedChange]:
        """What cannot be read is begun anew: the other nodes have it."""
        try:
            data = self._path.read_bytes()
            if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
                raise ValueError("it is damaged")
            version, sealed = msgpack.unpackb(data[_DIGEST:])
            if version != _VERSION:
                raise ValueError(f"it is of version {version}")
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            log.warning("the pins of the cluster are asked for anew; %s: %s", self._path, error)
            return []
        return [signed for each in sealed if (signed := self._opened(each)) is not None]

    def _opened(self, sealed: bytes) -> SignedChange | None:
        try:
            return open_change(sealed, cluster_key=self._cluster_key)
        except ProtocolError as error:
            log.info("a pin of another cluster is left out: %s", error)
            return None


def _now_us() -> int:
    return time.time_ns() // 1000

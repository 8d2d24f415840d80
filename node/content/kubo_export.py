"""A model from an IPFS daemon as one stream: the leaves come in the order of `dag/export`, without a question each.

    dag/export ─► pieces of the answer ─► a thread reads section by section ─► checked and written at its place

Nothing of it is held: what is not wanted while it passes is asked for by `block/get`, if it is ever wanted. A stream
that does not pay is left for good: after 64 MiB more of no use than of use, as when most of the model is here already;
after eight seconds in which nothing was wanted, as when others give the rest; and when what is wanted does not come.
"""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from ...protocols.errors import AccelError
from .car import CarReader, Section
from .cid import format_cid
from .exchange import FetchEndsError
from .kubo import Kubo
from .leaves import DIGEST
from .orders import Order, Outcome
from .places import as_mismatch

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

#: How many bytes more may be of no use than of use.
MOST_UNUSED: Final = 64 << 20
#: How long nothing may be wanted.
IDLE_S: Final = 8.0
#: How long the next wanted block may take; a question for it must still fit into an exchange's patience.
PATIENCE_S: Final = 10.0
#: What a section of no use counts at least, so that many small ones come to an end as well.
_LEAST: Final = 1024

Taken = tuple[Order, Outcome, int]


class Export:
    """The stream of one model. Takes turns with its caller: it is read only while `take` waits."""

    def __init__(self, kubo: Kubo, root: bytes) -> None:
        self._kubo = kubo
        self._root = root
        self._opened: _Opened | None = None
        self._passed: set[bytes] = set()
        self._unused = 0
        self._last_wanted = trio.current_time()
        #: Whether it was left for good.
        self.over = False

    def may_have(self, order: Order) -> bool:
        """Whether a block can still come."""
        return not self.over and order.cid[-DIGEST:] not in self._passed

    async def take(self, wanted: Mapping[bytes, Order]) -> Taken | None:
        """Writes the next of the wanted blocks, by digest: its order, what became of it, and its bytes.

        None when none of them comes any more.

        Raises:
            FetchEndsError: the block is sound, and cannot be written here.
        """
        if trio.current_time() - self._last_wanted > IDLE_S:
            await self._leave(f"nothing was wanted for {IDLE_S:g} s")
        taken: Taken | None = None
        if not self.over:
            taken = await self._read(wanted)
        self._last_wanted = trio.current_time()
        return taken

    async def aclose(self) -> None:
        self.over = True
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.aclose()

    async def _read(self, wanted: Mapping[bytes, Order]) -> Taken | None:
        import httpx

        why = f"nothing that is wanted came for {PATIENCE_S:g} s"
        try:
            with trio.move_on_after(PATIENCE_S):
                if self._opened is None:
                    self._opened = _Opened(await self._kubo.rpc.open("dag/export", _options(self._root)))
                taken = await trio.to_thread.run_sync(self._next, self._opened, wanted)
                if taken is not None:
                    return taken
                why = "it is at its end, or most of it is of no use"
        except FetchEndsError:
            await self.aclose()
            raise
        except (AccelError, httpx.HTTPError) as error:
            why = str(error) or type(error).__name__
        except trio.Cancelled:
            await self.aclose()  # what was read of a section is lost
            raise
        await self._leave(why)
        return None

    async def _leave(self, why: str) -> None:
        if not self.over:
            log.info("%s is no longer read as a stream from the daemon: %s", format_cid(self._root), why)
        await self.aclose()

    def _next(self, opened: _Opened, wanted: Mapping[bytes, Order]) -> Taken | None:
        """Blocking. The sections before the next that is wanted are read over."""
        for section, reader in opened.sections:
            digest = section.cid[-DIGEST:]
            self._passed.add(digest)
            if (order := wanted.get(digest)) is not None:
                self._unused -= section.length
                return order, _keep(order, reader.read(section)), section.length
            self._unused += max(section.length, _LEAST)
            if self._unused > MOST_UNUSED:
                return None
        return None


def _options(root: bytes) -> dict[str, str]:
    return {"arg": format_cid(root), "progress": "false"}


def _keep(order: Order, block: bytes) -> Outcome:
    try:
        return order.keep(block)
    except AccelError as error:
        raise FetchEndsError(as_mismatch(error)) from None


class _Opened:
    """The answer as a CAR, read in a thread, piece by piece on the event loop."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces = response.aiter_raw()
        #: Blocking, each with the reader that has its bytes. One iterator, which goes on where it was left.
        self.sections = self._read()

    def _read(self) -> Iterator[tuple[Section, CarReader]]:
        reader = CarReader(io.BufferedReader(_Pulled(self._pieces)))
        for section in reader.sections():
            yield section, reader

    async def aclose(self) -> None:
        """Ends the generators of httpx from the inside, which would be left behind half used otherwise."""
        with trio.CancelScope(shield=True) as ending:
            ending.cancel()
            async for _ in self._pieces:
                pass
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._response.aclose()


class _Pulled(io.RawIOBase):
    """What comes, as a file for a thread of trio's."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, space: Any) -> int:
        if not self._left:
            self._left = memoryview(trio.from_thread.run(_some, self._pieces))
        size = min(len(space), len(self._left))
        space[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


async def _some(pieces: AsyncIterator[bytes]) -> bytes:
    """The next piece; nothing at the end."""
    async for piece in pieces:
        if piece:
            return piece
    return b""

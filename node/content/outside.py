"""Blocks from outside the cluster: an IPFS daemon, and gateways that serve them as they are.

Both are sources like a peer. Nothing is believed of them: the exchange checks each block against its CID. A gateway is
told a CID and nothing else: no name, no credentials, no cookies.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ...protocols.errors import AccelError, ErrorCode
from .bounded import read_bounded
from .cid import format_cid
from .exchange import BlockSource, Deliver, Settled
from .kubo import Kubo
from .kubo_address import Address, parse_kubo
from .kubo_export import Export
from .leaves import DIGEST
from .orders import Order
from .unixfs import MAX_BLOCK

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

GetBlock = Callable[[bytes], Awaitable[bytes | None]]

#: Blocks of one source that are asked for at once: a gateway takes long to answer, not long to send.
_AT_ONCE: Final = 4
#: Leaves that are asked for one by one before a stream is opened, which a small model is not worth.
_ONE_BY_ONE: Final = 16
_BLOCK_S: Final = 20.0
_CONNECT_S: Final = 10.0
_MOST_REDIRECTS: Final = 3
_RAW_BLOCK: Final = "application/vnd.ipld.raw"
#: A gateway that has no such block says one of these; 504 after it looked for long.
_LACKS: Final = frozenset({404, 410, 412, 504})


class OutsideSource(BlockSource, Protocol):
    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Outside:
    """What there is outside the cluster, as configured."""

    kubo: str | None = None
    authorization: str | None = None
    gateways: tuple[str, ...] = ()

    def sources(self, root: bytes, named: Sequence[str] = ()) -> list[OutsideSource]:
        """New ones for a fetch of one model, each to be closed after it; the daemon is led to the peers `named`."""
        daemon: list[OutsideSource] = []
        if self.kubo:
            daemon.append(DaemonBlocks(self.kubo, self.authorization, root, named))
        return [*daemon, *(GatewayBlocks(url) for url in self.gateways)]


class DaemonBlocks:
    """A daemon as a source of one model; it looks for what it lacks among the IPFS peers it knows.

    Folders, what is around files, and the first leaves are asked for one by one; the leaves of a model that has more
    come as one stream.
    """

    def __init__(self, address: str, authorization: str | None, root: bytes, named: Sequence[str] = ()) -> None:
        """`named` are addresses of IPFS peers, which the daemon may reach in ways that this node cannot."""
        parsed = parse_kubo(address)
        self.name = f"kubo {parsed.socket or parsed.url}"
        self._kubo = Kubo(parsed, authorization)
        self._root = root
        self._named = named
        self._one_by_one = 0
        self._export: Export | None = None

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError kubo-unreachable, kubo-refused, kubo-failed."""
        await self._lead()
        await _in_order(self._kubo.get_block, cids, deliver)

    async def write(self, orders: Sequence[Order], settled: Settled) -> bool:
        """Writes the leaves that come in the stream, and tells of each. False when some have to be asked for.

        Raises:
            FetchEndsError: the bytes cannot be written here, whoever they come from.
        """
        if self._one_by_one < _ONE_BY_ONE:
            self._one_by_one += len(orders)
            return False
        if self._export is None:
            self._export = Export(self._kubo, self._root)
        export = self._export
        wanted = {order.cid[-DIGEST:]: order for order in orders if export.may_have(order)}
        while wanted and (taken := await export.take(wanted)) is not None:
            order, outcome, size = taken
            del wanted[order.cid[-DIGEST:]]
            settled(order.cid, outcome, size)
        return False

    async def aclose(self) -> None:
        if self._export is not None:
            await self._export.aclose()
        await self._kubo.aclose()

    async def _lead(self) -> None:
        """Once, before the first question. What the daemon cannot reach either is no reason not to ask it."""
        named, self._named = self._named, ()
        async with trio.open_nursery() as nursery:
            for address in named:
                nursery.start_soon(self._connect, address)

    async def _connect(self, address: str) -> None:
        try:
            await self._kubo.connect(address)
        except AccelError as error:
            log.info("the daemon is not led to %s: %s", address, error)


class GatewayBlocks:
    """A path gateway as a source: `GET /ipfs/CID?format=raw` (https://specs.ipfs.tech/http-gateways/)."""

    def __init__(self, url: str) -> None:
        import httpx

        self.name = f"gateway {url}"
        self._url = Address(url).url
        self._http = httpx.AsyncClient(
            headers={"Accept": _RAW_BLOCK, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(_BLOCK_S, connect=_CONNECT_S),
            trust_env=False,  # which would bring passwords out of .netrc along
        )

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError gateway-failed."""
        await _in_order(self._get, cids, deliver)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._http.aclose()

    async def _get(self, cid: bytes) -> bytes | None:
        import httpx

        try:
            with trio.fail_after(_BLOCK_S):
                return await self._follow(httpx.URL(f"{self._url}/ipfs/{format_cid(cid)}?format=raw"))
        except trio.TooSlowError:
            raise self._failed(f"no block came in {_BLOCK_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(str(error) or type(error).__name__) from None

    async def _follow(self, url: httpx.URL) -> bytes | None:
        for _ in range(_MOST_REDIRECTS + 1):
            self._http.cookies.clear()
            async with self._http.stream("GET", url) as response:
                if response.next_request is None:
                    return await self._read(response)
                url = self._checked(response.next_request.url)
        raise self._failed(f"it redirects more than {_MOST_REDIRECTS} times")

    async def _read(self, response: httpx.Response) -> bytes | None:
        if response.status_code in _LACKS:
            return None
        if response.status_code != 200:
            raise self._failed(f"HTTP {response.status_code}")
        block = await read_bounded(response, MAX_BLOCK)
        if block is None:
            raise self._failed("it sends more than a block of 2 MiB")
        return block

    def _checked(self, url: httpx.URL) -> httpx.URL:
        """Where a redirect leads. A gateway out there has no business with hosts of this network."""
        if url.scheme not in ("http", "https") or (_is_near(url.host) and not _is_near(_host(self._url))):
            raise self._failed("it redirects to where no gateway is")
        return url

    def _failed(self, why: str) -> AccelError:
        return AccelError(ErrorCode.GATEWAY_FAILED, f"{self.name}: {why}", "Try another gateway.")


async def _in_order(get: GetBlock, cids: Sequence[bytes], deliver: Deliver) -> None:
    """Delivers each block in its turn, while the next ones are on their way."""
    failure: AccelError | None = None
    async with trio.open_nursery() as nursery:
        coming: deque[_Coming] = deque()
        left = iter(cids)
        try:
            while True:
                while len(coming) < _AT_ONCE and (cid := next(left, None)) is not None:
                    coming.append(_Coming(cid))
                    nursery.start_soon(coming[-1].run, get)
                if not coming:
                    break
                first = coming.popleft()
                await deliver(first.cid, await first.block())
        except AccelError as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Coming:
    """A block that was asked for."""

    def __init__(self, cid: bytes) -> None:
        self.cid = cid
        self._came = trio.Event()
        self._outcome: bytes | AccelError | None = None

    async def run(self, get: GetBlock) -> None:
        try:
            self._outcome = await get(self.cid)
        except AccelError as error:
            self._outcome = error
        self._came.set()

    async def block(self) -> bytes | None:
        await self._came.wait()
        if isinstance(self._outcome, AccelError):
            raise self._outcome
        return self._outcome


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname or ""


def _is_near(host: str) -> bool:
    """Whether a host is, by its name, of this machine or its network."""
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host

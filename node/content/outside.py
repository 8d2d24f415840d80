"""Blocks from outside the cluster: an IPFS daemon, and gateways that serve them as they are.

Both are sources like a peer. Nothing is believed of them: the exchange checks each block against its CID. A gateway is
told a CID and nothing else: no name, no credentials, no cookies.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ...protocols.errors import AccelError, ErrorCode
from .bounded import read_bounded
from .cid import format_cid
from .exchange import BlockSource, Deliver
from .kubo import Kubo
from .kubo_address import Address, parse_kubo
from .unixfs import MAX_BLOCK

if TYPE_CHECKING:
    import httpx

GetBlock = Callable[[bytes], Awaitable[bytes | None]]

#: Blocks of one source that are asked for at once: a gateway takes long to answer, not long to send.
_AT_ONCE: Final = 4
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

    def sources(self) -> list[OutsideSource]:
        """New ones for a fetch, each to be closed after it."""
        daemon: list[OutsideSource] = [DaemonBlocks(self.kubo, self.authorization)] if self.kubo else []
        return [*daemon, *(GatewayBlocks(url) for url in self.gateways)]


class DaemonBlocks:
    """A daemon as a source; it looks for what it lacks among the IPFS peers it knows."""

    def __init__(self, address: str, authorization: str | None) -> None:
        parsed = parse_kubo(address)
        self.name = f"kubo {parsed.socket or parsed.url}"
        self._kubo = Kubo(parsed, authorization)

    async def fetch(self, cids: Sequence[bytes], deliver: Deliver) -> None:
        """Raises AccelError kubo-unreachable, kubo-refused, kubo-failed."""
        await _in_order(self._kubo.get_block, cids, deliver)

    async def aclose(self) -> None:
        await self._kubo.aclose()


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

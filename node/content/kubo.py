"""An IPFS daemon's RPC, as Kubo documents it (https://docs.ipfs.tech/reference/kubo/rpc/).

    POST /api/v0/COMMAND?arg=… ─► 200 and what was asked for, as bytes, JSON or a JSON object a line
                               ─► 500 and {"Message", "Code", "Type"}; 401 and 403 where a door stands before it

What fails after the first byte is told in a trailer (`X-Stream-Error`), which HTTP clients drop: so each call here asks
for something at the end of its answer that a broken one lacks, and takes what lacks it as failed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import trio

from ...protocols.errors import AccelError, ErrorCode
from .bounded import read_bounded
from .cid import DAG_PB, format_cid, parse_cid, parts
from .kubo_address import Address
from .unixfs import MAX_BLOCK

if TYPE_CHECKING:
    import httpx

#: How long a daemon may take to answer a small question, to find a block, and to check a whole model for a pin.
ANSWER_S: Final = 10.0
BLOCK_S: Final = 20.0
PIN_S: Final = 600.0
#: For 100 GB at 10 MB/s; a write that stalls ends much sooner.
IMPORT_S: Final = 10_800.0
_MAX_ANSWER: Final = 1 << 20
_MAX_PINS: Final = 64 << 20
_MAX_TOLD: Final = 300
_LONGEST_VERSION: Final = 64
#: What Kubo says of a block it did not find in time, or does not have while it is offline.
_LACKS: Final = ("not found", "could not find", "deadline exceeded", "no block", "blockstore: block")
#: And of a pin that is none.
_UNPINNED: Final = ("not pinned", "is not pinned")


class Kubo:
    """One daemon. Every call raises AccelError: kubo-unreachable, kubo-refused, kubo-failed."""

    def __init__(self, address: Address, authorization: str | None = None) -> None:
        """`authorization` is what goes into that header; it is never shown."""
        import httpx

        self._shown = address.socket or address.url
        self._http = httpx.AsyncClient(
            base_url=f"{address.url}/api/v0/",
            headers={"Accept-Encoding": "identity"} | ({"Authorization": authorization} if authorization else {}),
            transport=httpx.AsyncHTTPTransport(uds=address.socket, verify=address.url.startswith("https:")),
            timeout=httpx.Timeout(BLOCK_S, connect=ANSWER_S),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._http.aclose()

    # --- the daemon itself

    async def version(self) -> str:
        """Its version, like 0.32.1; what has none is no Kubo."""
        version = (await self._ask_json("version")).get("Version")
        if not isinstance(version, str) or not 0 < len(version) <= _LONGEST_VERSION or not version.isprintable():
            raise self._failed("it has no version, so it is no Kubo RPC")
        return version

    async def peer_id(self) -> str:
        return self._text(await self._ask_json("id"), "ID")

    async def connect(self, address: str) -> None:
        """Links the daemon with the peer at a multiaddr that ends in /p2p/ID."""
        told = (await self._ask_json("swarm/connect", arg=address, timeout="9s")).get("Strings")
        if not isinstance(told, list) or not any("success" in str(each) for each in told):
            raise self._failed("it did not connect")

    # --- blocks

    async def get_block(self, cid: bytes) -> bytes | None:
        """A block, which is not checked here; None when the daemon does not find it in time."""
        try:
            return await self._ask(
                "block/get", {"arg": format_cid(cid), "timeout": f"{BLOCK_S - 2:g}s"}, MAX_BLOCK, BLOCK_S
            )
        except AccelError as error:
            if error.code == ErrorCode.KUBO_FAILED and any(each in error.message for each in _LACKS):
                return None
            raise

    async def block_size(self, cid: bytes) -> int:
        """Bytes of a block that it has."""
        size = (await self._ask_json("block/stat", arg=format_cid(cid), timeout="9s")).get("Size")
        if type(size) is not int or size < 0:
            raise self._failed("it tells no size")
        return size

    async def put_block(self, cid: bytes, block: bytes) -> None:
        """Gives it a block, and sees that it made the same CID of it."""
        codec = "dag-pb" if parts(cid).codec == DAG_PB else "raw"
        options = {"cid-codec": codec, "mhtype": "sha2-256", "pin": "false", "allow-big-block": "true"}
        told = self._object(await self._ask("block/put", options, _MAX_ANSWER, BLOCK_S, _whole(block)))
        key = self._cid(self._text(told, "Key"))
        if parts(key).digest != parts(cid).digest:
            raise self._failed(f"it made {format_cid(key)} of the block {format_cid(cid)}")

    async def import_car(self, root: bytes, car: AsyncIterable[bytes]) -> None:
        """Gives it the blocks of a CAR. Its count of them comes at the end, when it has them all."""
        options = {"pin-roots": "false", "stats": "true", "allow-big-block": "true"}
        told = self._object(await self._ask("dag/import", options, _MAX_ANSWER, IMPORT_S, car))
        stats = told.get("Stats")
        if not isinstance(stats, dict) or not stats.get("BlockCount"):
            raise self._failed(f"it broke off while it took {format_cid(root)}")

    # --- pins

    async def pin(self, cid: bytes) -> None:
        """Keeps the whole DAG, which it has to have by then; that is the end of its answer."""
        answer = await self._ask("pin/add", {"arg": format_cid(cid), "timeout": f"{PIN_S:g}s"}, _MAX_ANSWER, PIN_S)
        self._check_named(answer, "Pins", cid)

    async def unpin(self, cid: bytes) -> bool:
        """Whether it was pinned."""
        try:
            answer = await self._ask("pin/rm", {"arg": format_cid(cid)}, _MAX_ANSWER, ANSWER_S)
        except AccelError as error:
            if error.code == ErrorCode.KUBO_FAILED and any(each in error.message for each in _UNPINNED):
                return False
            raise
        self._check_named(answer, "Pins", cid)
        return True

    async def pins(self) -> set[bytes]:
        """The roots of what is pinned whole, those whose CID this node reads."""
        answer = self._object(await self._ask("pin/ls", {"type": "recursive"}, _MAX_PINS, BLOCK_S))
        keys = answer.get("Keys", {})
        if not isinstance(keys, dict):
            raise self._failed("its list of pins is none")
        return {cid for key in keys if (cid := _readable(key)) is not None}

    # --- asking

    async def _ask_json(self, command: str, **options: str) -> dict[str, Any]:
        return self._object(await self._ask(command, options, _MAX_ANSWER, ANSWER_S))

    async def _ask(
        self,
        command: str,
        options: dict[str, str],
        limit: int,
        seconds: float,
        body: AsyncIterable[bytes] | None = None,
    ) -> bytes:
        """The whole answer, of `limit` bytes at most."""
        async with self._answering(command, options, seconds, body) as response:
            answer = await read_bounded(response, limit)
        if answer is None:
            raise self._failed(f"{command} answers with more than {limit} bytes")
        return answer

    @asynccontextmanager
    async def _answering(
        self, command: str, options: dict[str, str], seconds: float, body: AsyncIterable[bytes] | None
    ) -> AsyncIterator[httpx.Response]:
        """An answer of status 200. All that goes wrong with it leaves here as an AccelError."""
        import httpx

        boundary = uuid4().hex
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"} if body is not None else {}
        content = _multipart(body, boundary) if body is not None else None
        try:
            with trio.fail_after(seconds):
                asking = self._http.stream(
                    "POST",
                    command,
                    params=options,
                    headers=kind,
                    content=content,
                    timeout=httpx.Timeout(min(seconds, PIN_S), connect=ANSWER_S),
                )
                async with asking as response:
                    await self._check(command, response)
                    yield response
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise self._unreachable(error) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(f"{command}: {error}") from None

    async def _check(self, command: str, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        told = await read_bounded(response, _MAX_ANSWER) or b""
        if response.status_code in (401, 403):
            raise AccelError(
                ErrorCode.KUBO_REFUSED,
                f"the IPFS daemon at {self._shown} refused {command} (HTTP {response.status_code})",
                "Set IPFS_ACCEL_KUBO_AUTH to 'Bearer TOKEN' or 'Basic BASE64', and let it in at the daemon "
                "(API.Authorizations).",
            )
        raise self._failed(f"{command}: {_message(told) or f'HTTP {response.status_code}'}")

    # --- what it answers

    def _check_named(self, answer: bytes, key: str, cid: bytes) -> None:
        named = self._object(answer).get(key)
        if not isinstance(named, list) or parts(cid).digest not in {_digest(each) for each in named}:
            raise self._failed(f"its answer does not name {format_cid(cid)}")

    def _object(self, answer: bytes) -> dict[str, Any]:
        """The last JSON object of an answer, which may be a stream of them, a line each."""
        lines = answer.strip().splitlines()
        try:
            found = json.loads(lines[-1]) if lines else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._failed("its answer is no JSON object, or broke off")
        return found

    def _text(self, answer: dict[str, Any], key: str) -> str:
        value = answer.get(key)
        if not isinstance(value, str) or not value:
            raise self._failed(f"its answer has no {key}")
        return value

    def _cid(self, text: str) -> bytes:
        if (cid := _readable(text)) is None:
            raise self._failed("its answer has a CID that cannot be read")
        return cid

    def _failed(self, why: str) -> AccelError:
        return AccelError(
            ErrorCode.KUBO_FAILED,
            f"the IPFS daemon at {self._shown}: {why}",
            "See that this is the daemon's RPC (port 5001, not the gateway), and what its own log says.",
        )

    def _unreachable(self, error: Exception) -> AccelError:
        why = "it was silent for too long" if isinstance(error, trio.TooSlowError) else str(error)
        return AccelError(
            ErrorCode.KUBO_UNREACHABLE,
            f"the IPFS daemon at {self._shown} is not reached: {why or type(error).__name__}",
            "Start it with `ipfs daemon`, or correct --kubo.",
        )


async def _whole(block: bytes) -> AsyncIterator[bytes]:
    yield block


async def _multipart(body: AsyncIterable[bytes], boundary: str) -> AsyncIterator[bytes]:
    """One file, as Kubo takes it."""
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="data"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    async for piece in body:
        yield piece
    yield f"\r\n--{boundary}--\r\n".encode()


def _message(told: bytes) -> str:
    try:
        found = json.loads(told)
    except (ValueError, RecursionError):
        return ""
    message = found.get("Message") if isinstance(found, dict) else None
    return " ".join(message.split())[:_MAX_TOLD] if isinstance(message, str) else ""


def _readable(text: object) -> bytes | None:
    try:
        return parse_cid(text) if isinstance(text, str) else None
    except AccelError:
        return None


def _digest(text: object) -> bytes | None:
    cid = _readable(text)
    return parts(cid).digest if cid is not None else None

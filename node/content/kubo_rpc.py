"""Asking an IPFS daemon, as Kubo documents its RPC (https://docs.ipfs.tech/reference/kubo/rpc/).

    POST /api/v0/COMMAND?arg=… ─► 200 and what was asked for, as bytes, JSON or a JSON object a line
                               ─► 500 and {"Message", "Code", "Type"}; 404 for a command that it does not have
                               ─► 401 and 403 where a door stands before it

What fails after the first byte is told in a trailer (`X-Stream-Error`), which HTTP clients drop: so whoever asks looks
for something at the end of an answer that a broken one lacks, and takes what lacks it as failed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import uuid4

import trio

from ...protocols.errors import AccelError, ErrorCode
from .bounded import each_line, read_bounded
from .cid import format_cid, parse_cid, parts
from .kubo_address import Address

if TYPE_CHECKING:
    import httpx

#: How long a daemon may take to answer a small question, and to find a block.
ANSWER_S: Final = 10.0
BLOCK_S: Final = 20.0
#: The longest that it may be silent in a long answer.
_SILENCE_S: Final = 600.0
MAX_ANSWER: Final = 1 << 20
_MAX_TOLD: Final = 300

Options = Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """A part of what is sent: a file, or a folder without `content`, at its path."""

    path: str
    content: AsyncIterable[bytes] | None = None
    kind: str = "application/octet-stream"


class UnknownCommandError(AccelError):
    """The daemon has no such command: it is older or newer, or another program's."""


class Rpc:
    """One daemon, asked. What goes wrong is an AccelError: kubo-unreachable, kubo-refused, kubo-failed."""

    def __init__(self, address: Address, authorization: str | None = None) -> None:
        """`authorization` is what goes into that header; it is never shown."""
        import httpx

        self.shown = address.socket or address.url
        self._http = httpx.AsyncClient(
            base_url=f"{address.url}/api/v0/",
            headers={"Accept-Encoding": "identity"} | ({"Authorization": authorization} if authorization else {}),
            transport=httpx.AsyncHTTPTransport(uds=address.socket, verify=address.url.startswith("https:")),
            timeout=httpx.Timeout(BLOCK_S, connect=ANSWER_S),
            trust_env=False,
        )

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._http.aclose()

    async def ask_object(self, command: str, seconds: float | None = None, **options: str) -> dict[str, Any]:
        """The last JSON object of a small answer."""
        return self.object(await self.ask(command, options, MAX_ANSWER, ANSWER_S if seconds is None else seconds))

    async def ask(
        self, command: str, options: Options, limit: int, seconds: float, sent: AsyncIterable[Part] | None = None
    ) -> bytes:
        """The whole answer, of `limit` bytes at most."""
        async with self._answering(command, options, seconds, sent) as response:
            answer = await read_bounded(response, limit)
        if answer is None:
            raise self.failed(f"{command} answers with more than {limit} bytes")
        return answer

    async def listen(
        self,
        command: str,
        options: Options,
        seconds: float,
        hear: Callable[[dict[str, Any]], bool],
        sent: AsyncIterable[Part] | None = None,
    ) -> None:
        """Calls `hear` with each JSON object as it comes, until it says False or there are no more."""
        async with self._answering(command, options, seconds, sent) as response:
            if not await each_line(response, MAX_ANSWER, lambda line: hear(self.object(line))):
                raise self.failed(f"{command} answers with more than {MAX_ANSWER} bytes")

    async def open(self, command: str, options: Options) -> httpx.Response:
        """An answer of status 200 whose body is still to be read, and which has to be closed."""

        request = self._http.build_request("POST", command, params=dict(options))
        with self._coded(command):
            with trio.fail_after(BLOCK_S):
                response = await self._http.send(request, stream=True)
                try:
                    await self._check(command, response)
                except BaseException:
                    await response.aclose()
                    raise
        return response

    @asynccontextmanager
    async def _answering(
        self, command: str, options: Options, seconds: float, sent: AsyncIterable[Part] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer of status 200. All that goes wrong with it leaves here as an AccelError."""
        import httpx

        boundary = uuid4().hex
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"} if sent is not None else {}
        with self._coded(command):
            with trio.fail_after(seconds):
                asking = self._http.stream(
                    "POST",
                    command,
                    params=dict(options),
                    headers=kind,
                    content=_multipart(sent, boundary) if sent is not None else None,
                    timeout=httpx.Timeout(min(seconds, _SILENCE_S), connect=ANSWER_S),
                )
                async with asking as response:
                    await self._check(command, response)
                    yield response

    @contextmanager
    def _coded(self, command: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.TransportError, trio.TooSlowError) as error:
            raise self._unreachable(error) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.failed(f"{command}: {error}") from None

    async def _check(self, command: str, response: httpx.Response) -> None:
        if response.status_code == 200:
            return
        told = await read_bounded(response, MAX_ANSWER) or b""
        if response.status_code in (401, 403):
            raise AccelError(
                ErrorCode.KUBO_REFUSED,
                f"the IPFS daemon at {self.shown} refused {command} (HTTP {response.status_code})",
                "Set IPFS_ACCEL_KUBO_AUTH to 'Bearer TOKEN' or 'Basic BASE64', and let it in at the daemon "
                "(API.Authorizations).",
            )
        failure = self.failed(f"{command}: {_message(told) or f'HTTP {response.status_code}'}")
        if response.status_code == 404:
            raise UnknownCommandError(failure.code, failure.message, failure.hint)
        raise failure

    # --- what it answers

    def check_named(self, answer: bytes, key: str, cid: bytes) -> None:
        named = self.object(answer).get(key)
        if not isinstance(named, list) or parts(cid).digest not in {_digest(each) for each in named}:
            raise self.failed(f"its answer does not name {format_cid(cid)}")

    def object(self, answer: bytes) -> dict[str, Any]:
        """The last JSON object of an answer, which may be a stream of them, a line each."""
        lines = answer.strip().splitlines()
        try:
            found = json.loads(lines[-1]) if lines else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self.failed("its answer is no JSON object, or broke off")
        return found

    def text(self, answer: dict[str, Any], key: str) -> str:
        value = answer.get(key)
        if not isinstance(value, str) or not value:
            raise self.failed(f"its answer has no {key}")
        return value

    def cid(self, text: str) -> bytes:
        if (cid := _readable(text)) is None:
            raise self.failed("its answer has a CID that cannot be read")
        return cid

    def failed(self, why: str, hint: str = "") -> AccelError:
        return AccelError(
            ErrorCode.KUBO_FAILED,
            f"the IPFS daemon at {self.shown}: {why}",
            hint or "See that this is the daemon's RPC (port 5001, not the gateway), and what its own log says.",
        )

    def _unreachable(self, error: Exception) -> AccelError:
        why = "it was silent for too long" if isinstance(error, trio.TooSlowError) else str(error)
        return AccelError(
            ErrorCode.KUBO_UNREACHABLE,
            f"the IPFS daemon at {self.shown} is not reached: {why or type(error).__name__}",
            "Start it with `ipfs daemon`, or correct --kubo.",
        )


async def alone(part: Part) -> AsyncIterator[Part]:
    """A part and nothing else."""
    yield part


async def whole(content: bytes) -> AsyncIterator[bytes]:
    """A part's content in one piece."""
    yield content


async def _multipart(sent: AsyncIterable[Part], boundary: str) -> AsyncIterator[bytes]:
    """Files and folders as Kubo takes them, each folder before what is in it."""
    async for part in sent:
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{quote(part.path, safe="")}"\r\n'
            f"Content-Type: {part.kind}\r\n\r\n"
        ).encode()
        if part.content is not None:
            async for piece in part.content:
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def told(text: object) -> str:
    """What a daemon says, for a person: one line, not too long."""
    return " ".join(text.split())[:_MAX_TOLD] if isinstance(text, str) else ""


def _message(answer: bytes) -> str:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return ""
    return told(found.get("Message")) if isinstance(found, dict) else ""


def _readable(text: object) -> bytes | None:
    try:
        return parse_cid(text) if isinstance(text, str) else None
    except AccelError:
        return None


def _digest(text: object) -> bytes | None:
    cid = _readable(text)
    return parts(cid).digest if cid is not None else None

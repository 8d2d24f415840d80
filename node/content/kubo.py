"""What a node asks its IPFS daemon for: blocks, pins, imports and connections; `kubo_rpc` says how it is asked.

Who provides a CID is in `kubo_routing`, a whole model as one stream in `kubo_export`, a folder given file by file in
`kubo_add`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable
from types import TracebackType
from typing import Final, Self

from ...protocols.errors import AccelError, ErrorCode
from .cid import format_cid
from .kubo_address import Address
from .kubo_rpc import ANSWER_S, BLOCK_S, MAX_ANSWER, Part, Rpc, UnknownCommandError, alone
from .unixfs import MAX_BLOCK

#: How long a daemon may take to check a whole model for a pin.
PIN_S: Final = 600.0
#: For 100 GB at 10 MB/s; a write that stalls ends much sooner.
IMPORT_S: Final = 10_800.0
_LONGEST_VERSION: Final = 64
#: What Kubo says of a block it did not find in time, or does not have while it is offline.
_LACKS: Final = ("not found", "could not find", "deadline exceeded", "no block", "blockstore: block")
#: And of a pin that is none.
_UNPINNED: Final = ("not pinned", "is not pinned")


class Kubo:
    """One daemon. Every call raises AccelError: kubo-unreachable, kubo-refused, kubo-failed."""

    def __init__(self, address: Address, authorization: str | None = None) -> None:
        """`authorization` is what goes into that header; it is never shown."""
        self.rpc = Rpc(address, authorization)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self.rpc.aclose()

    async def version(self) -> str:
        """Its version, like 0.32.1; what has none is no Kubo."""
        version = (await self.rpc.ask_object("version")).get("Version")
        if not isinstance(version, str) or not 0 < len(version) <= _LONGEST_VERSION or not version.isprintable():
            raise self.rpc.failed("it has no version, so it is no Kubo RPC")
        return version

    async def peer_id(self) -> str:
        return self.rpc.text(await self.rpc.ask_object("id"), "ID")

    async def connect(self, address: str) -> None:
        """Links the daemon with the peer at a multiaddr that ends in /p2p/ID."""
        told = (await self.rpc.ask_object("swarm/connect", arg=address, timeout="9s")).get("Strings")
        if not isinstance(told, list) or not any("success" in str(each) for each in told):
            raise self.rpc.failed("it did not connect")

    async def get_block(self, cid: bytes) -> bytes | None:
        """A block, which is not checked here; None when the daemon does not find it in time."""
        try:
            return await self.rpc.ask(
                "block/get", {"arg": format_cid(cid), "timeout": f"{BLOCK_S - 2:g}s"}, MAX_BLOCK, BLOCK_S
            )
        except AccelError as error:
            if error.code == ErrorCode.KUBO_FAILED and any(each in error.message for each in _LACKS):
                return None
            raise

    async def import_car(self, root: bytes, car: AsyncIterable[bytes]) -> None:
        """Gives it the blocks of a CAR. Its count of them comes at the end, when it has them all."""
        options = {"pin-roots": "false", "stats": "true", "allow-big-block": "true"}
        try:
            answer = await self.rpc.ask("dag/import", options, MAX_ANSWER, IMPORT_S, alone(Part("data", car)))
        except UnknownCommandError as error:
            hint = "Give it the files instead: ipfs-accel-node model publish MODEL --as-files"
            raise AccelError(error.code, error.message, hint) from None
        stats = self.rpc.object(answer).get("Stats")
        if not isinstance(stats, dict) or not stats.get("BlockCount"):
            raise self.rpc.failed(f"it broke off while it took {format_cid(root)}")

    async def pin(self, cid: bytes) -> None:
        """Keeps the whole DAG, which it has to have by then; that is the end of its answer."""
        answer = await self.rpc.ask("pin/add", {"arg": format_cid(cid), "timeout": f"{PIN_S:g}s"}, MAX_ANSWER, PIN_S)
        self.rpc.check_named(answer, "Pins", cid)

    async def unpin(self, cid: bytes) -> bool:
        """Whether it was pinned."""
        try:
            answer = await self.rpc.ask("pin/rm", {"arg": format_cid(cid)}, MAX_ANSWER, ANSWER_S)
        except AccelError as error:
            if error.code == ErrorCode.KUBO_FAILED and any(each in error.message for each in _UNPINNED):
                return False
            raise
        self.rpc.check_named(answer, "Pins", cid)
        return True

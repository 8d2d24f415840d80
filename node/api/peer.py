"""The peers' door: a request that came over a link is computed here or refused, never forwarded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import trio

from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference import Request
from ..availability import Availability
from ..content.cid import parse_cid
from ..content.store import Origin
from ..exchanges import Incoming, IncomingCall
from ..hold_points import hold
from ..identity_card import IdentityCard
from ..running import RunningJobs
from ..serving.service import ServingService
from .local import Operation


class PeerDoor:
    """Answers the jobs of one node's peers."""

    def __init__(
        self,
        card: IdentityCard,
        serving: ServingService,
        availability: Availability,
        running: RunningJobs,
        origin_of: Callable[[bytes], Origin | None],
    ) -> None:
        """`origin_of` says where a model that is here came from."""
        self._card = card
        self._serving = serving
        self._availability = availability
        self._running = running
        self._origin_of = origin_of
        self.running = 0
        #: What else peers may ask for, by method.
        self.calls: dict[str, Operation] = {}

    async def handle_request(self, incoming: Incoming) -> None:
        request = incoming.request
        self._availability.check_computes()
        cid = parse_cid(request.model)
        await self._hold(request, "before-admission")
        self.running += 1
        try:
            with (
                trio.move_on_after(request.remaining_ms / 1000),
                self._serving.admit(request) as admission,
                self._running.listed(incoming, cid, own=False),
            ):
                self._running.moved(incoming, self._card.node_name, admission.backend)
                incoming.accept(admission.queue_length, admission.expected_wait_s)
                report, payload = await self._serving.execute(
                    admission,
                    request,
                    await incoming.payload(),
                    on_progress=incoming.progress,
                    on_chunk=incoming.chunk,
                )
                await self._hold(request, "before-result")
                incoming.result({**report, **asdict(self._card)}, payload)
                return
        finally:
            self.running -= 1
        raise AccelError(ErrorCode.DEADLINE_EXCEEDED, "the job's time was up before it finished here")

    async def handle_call(self, call: IncomingCall) -> Any:
        if call.method == "origin":
            return self._told_origin(call)
        if (answer := self.calls.get(call.method)) is not None:
            return await answer(call)
        raise AccelError(ErrorCode.UNKNOWN_METHOD, f"a peer cannot ask for {call.method!r}")

    def _told_origin(self, call: IncomingCall) -> dict[str, Any] | None:
        cid = call.arguments.get("model") if isinstance(call.arguments, dict) else None
        if not isinstance(cid, bytes):
            raise AccelError(ErrorCode.BAD_INPUT, "origin needs a model's binary CID")
        origin = self._origin_of(cid)
        return origin._asdict() if origin else None

    async def _hold(self, request: Request, name: str) -> None:
        has_echo = any(state.name == "echo" for state in self._serving.backend_states())
        await hold(request, name, allowed=has_echo)

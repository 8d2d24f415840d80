"""The node's side of its bulk process: started when it is first needed, and again when it died."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import trio

from ...protocols.bulk import Ticket, TicketRequest
from ...protocols.errors import AccelError, ErrorCode
from ..channel import OnProgress
from ..content.orders import Order
from ..serving.worker_process import WorkerProcess
from ..tcp import HostPort

log = logging.getLogger(__name__)

_MODULE: Final = f"{__package__}.main"
_START_DEADLINE_S: Final = 20.0
_CALL_DEADLINE_S: Final = 10.0
_STOP_GRACE_S: Final = 0.5
_PING_EVERY_S: Final = 2.0
_PING_DEADLINE_S: Final = 10.0
#: One that dies more often than this in a minute is not started for the rest of it; blocks go over libp2p meanwhile.
_STARTS_A_MINUTE: Final = 6
#: Asks one peer for a ticket, given the key that the connection will be opened with. Raises AccelError.
TicketAsker = Callable[[bytes], Awaitable[Ticket]]

#: Where it listens beside the node's own port.
PORT_OFFSET: Final = 1000


class BulkProcess:
    """One of it a node. Calls raise AccelError worker-died when the process is not there to answer."""

    def __init__(self, store: Path, listen: Sequence[str]) -> None:
        """`listen` are the node's own multiaddrs."""
        self._store = store
        self._listen = listen
        self._nursery: trio.Nursery | None = None
        self._running: _Life | None = None
        self._starting = trio.Lock()
        self._starts: list[float] = []
        self._numbers = count(1)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Starts the process whenever it is needed, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def ticket(self, peer_id: str, asked: TicketRequest, own_addresses: Iterable[str]) -> Ticket:
        """For a peer to open a connection with. Raises AccelError content-not-found, worker-died."""
        life = await self._life()
        arguments = {"peer_id": peer_id, "model": asked.model, "key": asked.key}
        secret = await life.call("issue", arguments)
        return Ticket(secret, life.about["fingerprint"], reachable(own_addresses, life.about["ports"]))

    async def connect(self, ask: TicketAsker) -> Connection:
        """A connection to the peer that `ask` asks for a ticket. Raises AccelError."""
        life = await self._life()
        ticket = await ask(life.about["key"])
        number = next(self._numbers)
        await life.call("open", {"connection": number, "ticket": ticket.answer()})
        return Connection(life, number)

    async def _life(self) -> _Life:
        async with self._starting:
            if self._running is None or self._running.ended:
                self._running = await self._start()
            return self._running

    async def _start(self) -> _Life:
        now = trio.current_time()
        self._starts = [at for at in self._starts if now - at < 60]
        if self._nursery is None or len(self._starts) >= _STARTS_A_MINUTE:
            raise _died("is not started again so soon")
        self._starts.append(now)
        with trio.move_on_after(_START_DEADLINE_S):
            life: _Life | None = await self._nursery.start(self._live)
            if life is not None:
                return life
        raise _died("does not start")

    async def _live(self, *, task_status: trio.TaskStatus[Any]) -> None:
        """One life, from its start to its end, however that comes."""
        arguments = ["--store", str(self._store)]
        for address in self._listen:
            arguments += ["--listen", str(beside(address))]
        try:
            process = await WorkerProcess.start_module(_MODULE, arguments, log)
        except OSError as error:
            log.warning("the bulk process cannot be started: %s", error)
            task_status.started(None)
            return
        life = _Life(process)
        try:
            await life.run(task_status)
            if not life.about:
                task_status.started(None)
        finally:
            life.ended = True
            log.info("the bulk process ended: %s", await process.stop(_STOP_GRACE_S))


class _Life:
    """A running process."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self.ended = False
        self.about: dict[str, Any] = {}

    async def run(self, task_status: trio.TaskStatus[Any]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._process.listen)
            nursery.start_soon(self._tend, task_status)
            await self._process.channel.run()
            self.ended = True
            nursery.cancel_scope.cancel()

    async def _tend(self, task_status: trio.TaskStatus[Any]) -> None:
        """Gets to know it, and ends one that no longer answers."""
        channel = self._process.channel
        try:
            self.about = await channel.call("about", {}, timeout=_START_DEADLINE_S)
            task_status.started(self)
            while True:
                await trio.sleep(_PING_EVERY_S)
                await channel.ping(timeout=_PING_DEADLINE_S)
        except AccelError as error:
            log.warning("the bulk process is ended: %s", error)
            self._process.kill()
            channel.close()

    async def call(
        self, method: str, arguments: Any, timeout: float = _CALL_DEADLINE_S, on_progress: OnProgress | None = None
    ) -> Any:
        try:
            return await self._process.channel.call(method, arguments, timeout=timeout, on_progress=on_progress)
        except AccelError:
            if self.ended or self._process.channel.closed:
                raise _died("died") from None
            raise


class Connection:
    """A connection of the process's to one peer."""

    def __init__(self, life: _Life, number: int) -> None:
        self._life = life
        self._number = number

    async def get(self, orders: Sequence[Order], on_progress: OnProgress) -> None:
        """`on_progress` is told (outcome, number of the order, bytes of its block) of each, in turn. Raises AccelError.

        It has no deadline of its own: the process tells of silence.
        """
        arguments = {"connection": self._number, "orders": [order.packed() for order in orders]}
        await self._life.call("get", arguments, float("inf"), on_progress)

    async def aclose(self) -> None:
        if not self._life.ended:
            with trio.move_on_after(1, shield=True):
                try:
                    await self._life.call("close", {"connection": self._number})
                except AccelError as error:
                    log.debug("closing a bulk connection: %s", error)


def beside(address: str) -> HostPort:
    """Where the bulk process of a node listens that itself listens at this multiaddr; port 0 is any."""
    _, _, host, _, port = address.split("/")[:5]
    number = int(port) + PORT_OFFSET if int(port) else 0
    return HostPort(host, number if number < 1 << 16 else 0)


def reachable(own_addresses: Iterable[str], ports: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """(host, port) of the process at each of the node's own multiaddrs, given its ports by the host it listens on."""
    found: list[tuple[str, int]] = []
    for address in own_addresses:
        host = address.split("/")[2]
        for listens_on, port in ports.items():
            listening, asked = ipaddress.ip_address(listens_on), ipaddress.ip_address(host)
            if listening == asked or (listening.is_unspecified and listening.version == asked.version):
                found.append((host, port))
    return tuple(dict.fromkeys(found))


def _died(how: str) -> AccelError:
    return AccelError(ErrorCode.WORKER_DIED, f"the bulk process {how}")

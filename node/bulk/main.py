"""The bulk process: serves and fetches blocks beside the node, so that no byte of them passes through its event loop.

    python -P -m ipfs_accel_node.node.bulk.main --store DIR --listen HOST:PORT … --fd 5

The node is the dialler of the inherited socket, and calls:

    about                               → {key, fingerprint, ports}
    issue {peer_id, model, key}         → a ticket's secret
    open {connection, ticket}           a connection to a peer, under the number that the node gives it
    get {connection, orders}            progress (outcome, number of the order, bytes of its block) as each comes
    close {connection}

Each call has a thread of its own, each connection that peers open too; a call that is cancelled ends its connection.
Neither trio nor libp2p is imported here.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...protocols import values
from ...protocols.bulk import Ticket
from ...protocols.errors import AccelError, ErrorCode
from ...protocols.inference_session import CallReceived, Cancelled, Event
from ..content.orders import Order, Outcome
from ..serving.worker_link import Link, or_end
from ..tcp import HostPort
from .getting import Connections
from .keys import BulkKeys
from .serving import BulkServer
from .tickets import Grant

log = logging.getLogger(__name__)

#: Jobs go first: what this process does can wait for a moment, always.
_NICENESS: Final = 10
_MOST_CALLS: Final = 64


class BulkWorker:
    """Answers the node's calls."""

    def __init__(self, link: Link, store: Path, listen: list[HostPort]) -> None:
        self._link = link
        self._keys = BulkKeys()
        self._server = BulkServer(store, self._keys)
        self._connections = Connections(self._keys)
        self._ports = {address.host: self._server.listen(address.host, address.port) for address in listen}
        self._getting: dict[int, int] = {}
        self._running: set[int] = set()
        self._cancelled: set[int] = set()

    def take(self, event: Event) -> None:
        match event:
            case CallReceived(request_id, method, payload):
                if len(self._running) >= _MOST_CALLS:
                    self._fail(request_id, AccelError(ErrorCode.BUSY, f"{_MOST_CALLS} calls are running"))
                    return
                self._running.add(request_id)
                threading.Thread(target=self._answer, args=(request_id, method, payload), daemon=True).start()
            case Cancelled(request_id) if request_id in self._running:
                self._cancelled.add(request_id)
                if (connection := self._getting.get(request_id)) is not None:
                    threading.Thread(target=self._connections.close, args=(connection,), daemon=True).start()

    def _answer(self, request_id: int, method: str, payload: bytes) -> None:
        try:
            answer = values.pack(self._call(request_id, method, values.unpack(payload)))
            self._link.say(lambda session: session.result(request_id, {}, answer))
        except AccelError as error:
            self._fail(request_id, error)
        except Exception as error:
            log.exception("the call %s failed", method)
            self._fail(request_id, AccelError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))
        finally:
            self._running.discard(request_id)
            self._cancelled.discard(request_id)

    def _fail(self, request_id: int, error: AccelError) -> None:
        self._link.say(lambda session: session.fail(request_id, error.code, error.message[:2000], error.hint[:2000]))

    def _call(self, request_id: int, method: str, arguments: dict[str, Any]) -> Any:
        match method:
            case "about":
                return {"key": self._keys.public, "fingerprint": self._keys.fingerprint, "ports": self._ports}
            case "issue":
                return self._server.issue(Grant(arguments["peer_id"], arguments["model"], arguments["key"]))
            case "open":
                return self._open(request_id, arguments["connection"], Ticket.parse(arguments["ticket"]))
            case "get":
                return self._get(request_id, arguments["connection"], arguments["orders"])
            case "close":
                return self._connections.close(arguments["connection"])
            case _:
                raise AccelError(ErrorCode.UNKNOWN_METHOD, method)

    def _open(self, request_id: int, connection: int, ticket: Ticket) -> None:
        self._connections.open(connection, ticket)
        if request_id in self._cancelled:
            self._connections.close(connection)

    def _get(self, request_id: int, connection: int, orders: list[list[Any]]) -> None:
        number = 0

        def tell(outcome: Outcome, size: int) -> None:
            nonlocal number
            said, number = number, number + 1
            self._link.say(lambda session: session.progress(request_id, outcome, said, size))

        self._getting[request_id] = connection
        try:
            if request_id in self._cancelled:
                raise AccelError(ErrorCode.CANCELLED, "nobody waits for this any more")
            self._connections.get(connection, [Order.unpacked(order) for order in orders], tell)
        except BaseException:
            self._connections.close(connection)
            raise
        finally:
            del self._getting[request_id]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--listen", type=HostPort.parse, action="append", default=[])
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    connection = socket.socket(fileno=options.fd)
    connection.set_inheritable(False)
    link = Link(connection)
    worker = BulkWorker(link, options.store, options.listen)
    threading.Thread(target=or_end, args=(link.write_all,), daemon=True).start()
    or_end(partial(link.read_all, worker.take))


if __name__ == "__main__":
    main()

"""A child process's end of the socket pair to its node: one session for several threads, and the end with it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ...protocols.errors import ProtocolError
from ...protocols.inference_session import Event, Limits, Session

log = logging.getLogger(__name__)

_READ_SIZE: Final = 1 << 18
_WRITE_SIZE: Final = 1 << 18


class Link:
    """One session over one socket, for several threads. Nothing here waits for the socket but `write_all`.

    Who has something to say sends it at once as far as the socket takes it, which saves a thread's turn; the writing
    thread sends the rest.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.limits = Limits()
        self._session = Session(dialler=False, limits=self.limits)
        self._changed = threading.Condition()
        self._rest = memoryview(b"")

    def say(self, speak: Callable[[Session], None]) -> None:
        """Lets `speak` answer through the session and sends what may go."""
        with self._changed:
            speak(self._session)
            self._send_at_once()

    def read_all(self, take: Callable[[Event], None]) -> None:
        """Returns when the other side has closed. Raises OSError or ProtocolError when the conversation broke."""
        while data := self._connection.recv(_READ_SIZE):
            with self._changed:
                events = self._session.receive(data)
                self._send_at_once()
            for event in events:
                take(event)

    def write_all(self) -> None:
        while True:
            with self._changed:
                while not self._rest:
                    self._changed.wait()
            # No other thread touches the rest while there is some.
            self._connection.sendall(self._rest)
            with self._changed:
                self._rest = memoryview(b"")
                self._send_at_once()

    def _send_at_once(self) -> None:
        while not self._rest and (data := self._session.data_to_send(_WRITE_SIZE)):
            sent = 0
            with suppress(BlockingIOError):
                sent = self._connection.send(data, socket.MSG_DONTWAIT)
            self._rest = memoryview(data)[sent:]
        if self._rest:
            self._changed.notify()


def _end(status: int) -> None:
    """Ends the process at once, whatever its other threads do, and with it what it started."""
    logging.shutdown()
    if os.getpgrp() == os.getpid():
        with suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(status)


def or_end(loop: Callable[[], None]) -> None:
    """A worker without one of its threads is worth nothing: the node starts another."""
    try:
        loop()
    except (OSError, ProtocolError) as error:
        log.debug("the node is gone: %s", error)
    except BaseException:
        log.exception("the worker ends")
        _end(1)
    _end(0)

"""What a session tells its driver. Terminal for an asker: refused, failed, result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .inference import Request


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A job came in; `payload` is None when it follows after acceptance."""

    request_id: int
    request: Request
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class PayloadReceived:
    request_id: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class CallReceived:
    request_id: int
    method: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Cancelled:
    request_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class AcceptedReceived:
    request_id: int
    queue_length: int
    expected_wait_ms: int


@dataclass(frozen=True, slots=True)
class RefusedReceived:
    request_id: int
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ProgressReceived:
    request_id: int
    state: str
    done: int
    total: int
    note: str


@dataclass(frozen=True, slots=True)
class ChunkReceived:
    request_id: int
    offset: int
    token_ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class ResultReceived:
    """The whole result: what made it, and its packed value."""

    request_id: int
    report: dict[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True)
class FailedReceived:
    request_id: int
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class PongReceived:
    token: int


Answer = AcceptedReceived | RefusedReceived | ProgressReceived | ChunkReceived | ResultReceived | FailedReceived
Event = RequestReceived | PayloadReceived | CallReceived | Cancelled | PongReceived | Answer

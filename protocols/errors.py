"""The errors a user, a client or a peer may see, each with a code that never changes its meaning.

A code says what went wrong, the message says where, the hint says what to do next. `docs/errors.md` explains
each one.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable codes. Once released, a code is never renamed and never given a second meaning."""

    # What the caller asked for cannot be done as asked; trying elsewhere gives the same answer.
    BAD_INPUT = "bad-input"
    BAD_CID = "bad-cid"
    BAD_TOKEN = "bad-token"  # noqa: S105
    BAD_CONFIG = "bad-config"
    TOO_LARGE = "too-large"
    UNKNOWN_MODEL = "unknown-model"
    AMBIGUOUS_MODEL = "ambiguous-model"
    NOT_A_MODEL = "not-a-model"
    UNSAFE_MODEL = "unsafe-model"
    GATED_MODEL = "gated-model"
    UNSUPPORTED_TASK = "unsupported-task"
    UNKNOWN_PEER = "unknown-peer"
    UNKNOWN_METHOD = "unknown-method"
    OTHER_BATCH = "other-batch"
    CANCELLED = "cancelled"
    DEADLINE_EXCEEDED = "deadline-exceeded"
    # This node cannot do it, at least not now; another one may.
    BUSY = "busy"
    DRAINING = "draining"
    PAUSED = "paused"
    MODEL_NOT_HERE = "model-not-here"
    NO_BACKEND = "no-backend"
    BACKEND_MISSING = "backend-missing"
    CONVERSION_FAILED = "conversion-failed"
    UNSUPPORTED_PRECISION = "unsupported-precision"
    BACKEND_DISAGREES = "backend-disagrees"
    OUT_OF_MEMORY = "out-of-memory"
    WORKER_DIED = "worker-died"
    PEER_LOST = "peer-lost"
    PEER_SILENT = "peer-silent"
    INTERNAL = "internal"
    # Content.
    CONTENT_NOT_FOUND = "content-not-found"
    CORRUPT_CONTENT = "corrupt-content"
    HOSTILE_CONTENT = "hostile-content"
    DISK_FULL = "disk-full"
    MODEL_IN_USE = "model-in-use"
    MODEL_PINNED = "model-pinned"
    MAY_NOT_LEAVE = "may-not-leave"
    # An IPFS daemon, and gateways.
    KUBO_UNREACHABLE = "kubo-unreachable"
    KUBO_REFUSED = "kubo-refused"
    KUBO_FAILED = "kubo-failed"
    GATEWAY_FAILED = "gateway-failed"
    # The node and its doors.
    NOT_RUNNING = "not-running"
    ALREADY_RUNNING = "already-running"
    PORT_IN_USE = "port-in-use"
    PERMISSION_DENIED = "permission-denied"
    WRONG_CLUSTER_KEY = "wrong-cluster-key"
    WRONG_CLIENT_TOKEN = "wrong-client-token"  # noqa: S105
    WRONG_CERTIFICATE = "wrong-certificate"
    VERSION_MISMATCH = "version-mismatch"
    PROTOCOL_ERROR = "protocol-error"
    UNKNOWN_MESSAGE = "unknown-message"
    # The machine.
    LIBRARY_MISMATCH = "library-mismatch"
    NETWORK_UNREACHABLE = "network-unreachable"


#: A job that failed with one of these is tried at the next candidate.
WORTH_ANOTHER_NODE = frozenset(
    {
        ErrorCode.BUSY,
        ErrorCode.DRAINING,
        ErrorCode.PAUSED,
        ErrorCode.MODEL_NOT_HERE,
        ErrorCode.NO_BACKEND,
        ErrorCode.BACKEND_MISSING,
        ErrorCode.CONVERSION_FAILED,
        ErrorCode.UNSUPPORTED_PRECISION,
        ErrorCode.BACKEND_DISAGREES,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.WORKER_DIED,
        ErrorCode.PEER_LOST,
        ErrorCode.PEER_SILENT,
        ErrorCode.INTERNAL,
        ErrorCode.PROTOCOL_ERROR,
        ErrorCode.UNKNOWN_MESSAGE,
    }
)


_DOCS = "docs/errors.md"
_KNOWN = frozenset(ErrorCode)


def docs_of(code: str) -> str:
    """Where the documentation explains a code; the page alone for one that this version does not know."""
    return f"{_DOCS}#{code}" if code in _KNOWN else _DOCS


class AccelError(Exception):
    """Something failed in a way that has a name.

    Attributes:
        code: one of `ErrorCode`, or a code of a newer peer that this version does not know.
        message: one line for a person: what failed and where.
        hint: what to do next; may be empty.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} [{code}]" + (f" {hint}" if hint else ""))
        self.code = str(code)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "hint": self.hint}

    @property
    def worth_another_node(self) -> bool:
        return self.code in WORTH_ANOTHER_NODE


class ProtocolError(AccelError):
    """The other side broke the protocol; the conversation cannot go on."""

    def __init__(self, message: str, code: str = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(code, message)


class LocalProtocolError(Exception):
    """This side called a session out of order: a mistake in the program, never in its input."""


class JobError(AccelError):
    """A job ended without a result."""

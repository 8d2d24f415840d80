"""What both clients share: how a job becomes a request, and an answer a value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from ..protocols import values
from ..protocols.errors import AccelError, ErrorCode, JobError
from ..protocols.inference import Request
from ..protocols.inference_session import FailedReceived, Limits, RefusedReceived

DEFAULT_TIMEOUT_S: Final = 300.0
#: How much longer than the job's own deadline a client waits for the node to say that it has passed.
GRACE_S: Final = 5.0
CALL_TIMEOUT_S: Final = 3600.0
_MAX_PAYLOAD: Final = Limits().max_payload


def socket_of(data_dir: Path | str | None) -> Path:
    """The socket of the node with that data folder, the default one when it is None."""
    from .config import Paths, default_data_dir

    return Paths(Path(data_dir).expanduser().absolute() if data_dir else default_data_dir()).socket


def not_running(socket: Path) -> AccelError:
    return AccelError(ErrorCode.NOT_RUNNING, f"no node answers at {socket}", "Start one: ipfs-accel-node start")


def make_request(
    model: str,
    task: str,
    inputs: Any,
    params: dict[str, Any],
    *,
    timeout: float | None,
    on: str | None,
    job_id: bytes | None,
) -> tuple[Request, bytes]:
    """The request and its packed inputs. Raises AccelError bad-input, too-large."""
    payload = values.pack(inputs)
    if len(payload) > _MAX_PAYLOAD:
        raise AccelError(
            ErrorCode.TOO_LARGE,
            f"the inputs take {len(payload) >> 20} MiB, over the limit of {_MAX_PAYLOAD >> 20}",
            "Send them in several jobs.",
        )
    seconds = DEFAULT_TIMEOUT_S if timeout is None else timeout
    if seconds <= 0:
        raise AccelError(ErrorCode.BAD_INPUT, "a timeout is more than nothing")
    request = Request(
        job_id=job_id or os.urandom(16),
        attempt=0,
        model=_text("model", model),
        task=_text("task", task),
        params={name: value for name, value in params.items() if value is not None},
        options={} if on is None else {"on": _text("on", on)},
        remaining_ms=max(1, int(seconds * 1000)),
        work={"bytes": count_bytes(inputs)},
    )
    return request, payload


def count_bytes(inputs: Any) -> int:
    """The work of a job as an entry node counts it, which may hold no tokenizer: bytes of text in UTF-8."""
    if isinstance(inputs, str):
        return len(inputs.encode(errors="replace"))
    if isinstance(inputs, bytes):
        return len(inputs)
    if isinstance(inputs, dict):
        return sum(map(count_bytes, inputs.values()))
    if isinstance(inputs, (list, tuple)):
        return sum(map(count_bytes, inputs))
    return 0


def value_of(payload: bytes) -> Any:
    """A result as the caller gets it, its arrays as numpy's."""
    return values.map_arrays(values.unpack(payload))


def error_of(event: FailedReceived | RefusedReceived) -> JobError:
    if event.code == ErrorCode.PEER_LOST:
        return JobError(
            event.code, "the node went away before the job ended", "Submit it again; `ipfs-accel-node status` looks."
        )
    return JobError(event.code, event.message, event.hint)


def embedding_inputs(texts: str | list[str] | tuple[str, ...]) -> str | list[str]:
    return texts if isinstance(texts, str) else list(texts)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise AccelError(ErrorCode.BAD_INPUT, f"{name} is a text that is not empty, not {value!r}")
    return value

"""What both clients share: where the node is, how a job becomes a request, and an answer a value."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from ..backends.precision import NAMES as PRECISIONS
from ..protocols import values
from ..protocols.client_door import ClientToken
from ..protocols.errors import AccelError, ErrorCode, JobError
from ..protocols.framing import MAX_FRAME
from ..protocols.inference import MAX_INLINE, Request
from ..protocols.inference_session import FailedReceived, Limits, RefusedReceived
from .client_tls import RemoteNode
from .tcp import HostPort

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, str], None]
#: Where a client finds its node: one of these sockets, or an address on another machine.
Places = tuple[Path, ...] | RemoteNode

TEXT_GENERATION: Final = "text-generation"
#: Text about images: as text generation, with images in the messages.
IMAGE_TEXT: Final = "image-text-to-text"
#: Where the new text stands in the value of such a job.
GENERATED: Final = "generated_text"
DEFAULT_TIMEOUT_S: Final = 300.0
#: What a node writes where nothing is said, see `backends/families/text_params.py`.
DEFAULT_MAX_NEW_TOKENS: Final = 256
#: How much longer than the job's own deadline a client waits for the node to say that it has passed.
GRACE_S: Final = 1.0
#: A node answers a question about itself within this time, or it is stopped or overloaded.
QUESTION_TIMEOUT_S: Final = 30.0
#: A long operation, such as fetching a model, may take any time, but not be silent for longer than this.
SILENCE_TIMEOUT_S: Final = 300.0
#: Bytes of the packed inputs of one job.
MAX_PAYLOAD: Final = Limits().max_payload

_LONGEST_S: Final = 30 * 86_400.0
_MAX_HEAD: Final = MAX_FRAME - MAX_INLINE


def places_of(node: Path | str | None, token: str | None) -> Places:
    """The sockets of a data folder, or the address HOST:PORT when there is a client token.

    Raises:
        AccelError: bad-input when one of both is missing or no address, bad-token.
    """
    if token is None:
        _check_is_no_address(node)
        return sockets_of(node)
    try:
        address = HostPort.parse(str(node or ""))
    except ValueError:
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"a client token goes with an address HOST:PORT, not with {str(node)!r}" if node else
            "a client token goes with an address, and there is none",
            "The node's `client-token` command prints both.",
        ) from None  # fmt: skip
    return RemoteNode(address, ClientToken.decode(token))


def _check_is_no_address(node: Path | str | None) -> None:
    try:
        address = HostPort.parse(node) if isinstance(node, str) else None
    except ValueError:
        return
    if address is not None and not Path(str(node)).exists():
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"{address} is an address, and there is no client token for it",
            "`ipfs-accel-node client-token` on that node prints one.",
        )


def sockets_of(data_dir: Path | str | None) -> tuple[Path, ...]:
    """Where the node with that data folder may listen, the default folder when it is None; never empty."""
    from .config import Paths, absolute, default_data_dir

    return Paths(absolute(data_dir) if data_dir else default_data_dir()).sockets


def is_trusted(socket: Path) -> bool:
    """False where another user could listen in the node's place. Raises OSError when there is nothing."""
    owner = socket.parent.stat().st_uid
    return os.getuid() in (0, owner)


def not_running(socket: Path) -> AccelError:
    return AccelError(ErrorCode.NOT_RUNNING, f"no node answers at {socket}", "Start one: ipfs-accel-node start")


def denied(socket: Path) -> AccelError:
    return AccelError(
        ErrorCode.PERMISSION_DENIED, f"{socket} is another user's", "Use the node of your own, or ask its owner."
    )


class NodeLostError(JobError):
    """The connection to this machine's own node ended, which befalls every job on it."""


def node_lost() -> NodeLostError:
    return NodeLostError(
        ErrorCode.PEER_LOST,
        "the node went away before it had answered",
        "Ask again; `ipfs-accel-node status` says whether it runs.",
    )


def client_closed() -> JobError:
    return JobError(ErrorCode.PEER_LOST, "this client was closed before the node had answered")


def no_answer(seconds: float) -> JobError:
    return JobError(
        ErrorCode.DEADLINE_EXCEEDED,
        f"the node gave no answer within {seconds:g} s",
        "Give it more time, or see what `ipfs-accel-node doctor` finds.",
    )


def make_request(
    model: str,
    task: str,
    inputs: Any,
    params: dict[str, Any],
    *,
    seconds: float,
    on: str | None,
    job_id: bytes | str | None,
    stream: bool = False,
) -> tuple[Request, bytes]:
    """The request and its packed inputs. Of the params, `precision` is for the choice of a node.

    Raises:
        AccelError: bad-input, too-large.
    """
    params = dict(params)
    options = _options(on=on, stream=stream, precision=params.pop("precision", None))
    payload = values.pack(inputs)
    if len(payload) > MAX_PAYLOAD:
        size = f"{len(payload) / (1 << 20):.1f} MiB"
        raise AccelError(
            ErrorCode.TOO_LARGE,
            f"the inputs take {size}, over the limit of {MAX_PAYLOAD >> 20} MiB",
            "Send them in several jobs.",
        )
    request = Request(
        job_id=_job_id(job_id),
        attempt=0,
        model=_text("model", model),
        task=_text("task", task),
        params={name: value for name, value in params.items() if value is not None},
        options=options,
        remaining_ms=max(1, int(seconds * 1000)),
        work={"bytes": count_bytes(inputs), **_count_outputs(task, params)},
    )
    _check_head(request)
    return request, payload


def _options(*, on: str | None, stream: bool, precision: str | None) -> dict[str, Any]:
    if precision not in (None, *PRECISIONS):
        raise AccelError(
            ErrorCode.BAD_INPUT, f"there is no precision {precision!r}"[:200], f"There are {', '.join(PRECISIONS)}."
        )
    asked = {"on": None if on is None else _text("on", on), "stream": stream or None, "precision": precision}
    return {name: value for name, value in asked.items() if value is not None}


def checked_timeout(seconds: float | None, otherwise: float) -> float:
    """Raises AccelError bad-input for what is no time in seconds."""
    if seconds is None:
        return otherwise
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or not 0 < seconds <= _LONGEST_S:
        raise AccelError(
            ErrorCode.BAD_INPUT, f"a timeout is seconds, more than nothing and at most 30 days, not {seconds!r}"
        )
    return float(seconds)


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


def _count_outputs(task: str, params: dict[str, Any]) -> dict[str, int]:
    """Tokens that the job may write at most, where it writes any."""
    if task not in (TEXT_GENERATION, IMAGE_TEXT):
        return {}
    asked = params.get("max_new_tokens")
    return {"outputs": asked if type(asked) is int and asked > 0 else DEFAULT_MAX_NEW_TOKENS}


def _job_id(given: bytes | str | None) -> bytes:
    """16 bytes, made up where none are given; text is their hexadecimal form, as `Job.job_id` has it."""
    if given is None:
        return os.urandom(16)
    try:
        job_id = bytes.fromhex(given) if isinstance(given, str) else given
    except ValueError:
        job_id = b""
    if not isinstance(job_id, bytes) or len(job_id) != 16:
        raise AccelError(ErrorCode.BAD_INPUT, "a job id has 16 bytes, or 32 hexadecimal digits")
    return job_id


def value_of(payload: bytes) -> Any:
    """A result as the caller gets it, its arrays as numpy's."""
    return values.map_arrays(values.unpack(payload))


def error_of(event: FailedReceived | RefusedReceived) -> JobError:
    return JobError(event.code, event.message, event.hint)


def as_call_error(error: JobError) -> AccelError:
    """What is said of a control operation, which is no job."""
    return AccelError(error.code, error.message, error.hint)


def tell(on_progress: OnProgress, state: str, done: int, total: int, note: str) -> bool:
    """Calls the user's function; False when it failed, which must not harm the others on the connection."""
    try:
        on_progress(state, done, total, note)
    except Exception:
        log.exception("on_progress failed and is not called again for this job")
        return False
    return True


def embedding_inputs(texts: str | Iterable[str]) -> str | list[str]:
    """One text or several, from any iterable. Raises AccelError bad-input."""
    if isinstance(texts, str):
        return texts
    listed = list(texts) if isinstance(texts, Iterable) else None
    if listed is None or not all(isinstance(text, str) for text in listed):
        raise AccelError(ErrorCode.BAD_INPUT, "what is embedded is a text or a list of texts")
    return listed


def _check_head(request: Request) -> None:
    """Everything but the inputs must fit one frame beside them."""
    try:
        size = len(request.to_frame(1))
    except (TypeError, UnicodeEncodeError, OverflowError) as error:
        raise AccelError(ErrorCode.BAD_INPUT, f"a name or a parameter cannot be sent: {error}") from None
    except ValueError:
        size = MAX_FRAME
    if size > _MAX_HEAD:
        raise AccelError(
            ErrorCode.TOO_LARGE,
            f"the names and parameters are over the limit of {_MAX_HEAD >> 10} KiB",
            "Large things go into the inputs.",
        )


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise AccelError(ErrorCode.BAD_INPUT, f"{name} is a text that is not empty, not {value!r}")
    return value

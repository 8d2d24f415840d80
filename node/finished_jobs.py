"""Results of the last minutes by job id: who asks for the same job again gets its result, and nothing is computed.

A client whose connection broke after the result was made asks again under the same id. Pure; the clock is passed in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..protocols.errors import AccelError, ErrorCode
from ..protocols.values import pack, unpack

KEPT_S: Final = 600.0
MOST_JOBS: Final = 1024
MOST_BYTES: Final = 32 << 20
LARGEST: Final = 1 << 20


@dataclass(frozen=True)
class Finished:
    """What a job gave; `asked` is a digest of what was asked for. Both parts of it are packed, so its size is known."""

    asked: bytes
    at: float
    packed_report: bytes
    payload: bytes

    @property
    def report(self) -> dict[str, Any]:
        return dict(unpack(self.packed_report))

    @property
    def size(self) -> int:
        return len(self.packed_report) + len(self.payload)


class FinishedJobs:
    """Bounded in count, in bytes and in time; a large result is not kept at all."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._jobs: OrderedDict[bytes, Finished] = OrderedDict()
        self._bytes = 0

    def get(self, job_id: bytes, asked: bytes) -> Finished | None:
        """Raises AccelError bad-input when the id was used for another job."""
        self._forget_old()
        finished = self._jobs.get(job_id)
        if finished is not None and finished.asked != asked:
            raise AccelError(
                ErrorCode.BAD_INPUT, f"the id {job_id.hex()} is that of another job", "Leave the id out, or make one."
            )
        return finished

    def put(self, job_id: bytes, asked: bytes, report: dict[str, Any], payload: bytes) -> None:
        finished = Finished(asked, self._clock(), pack(report), payload)
        if finished.size > LARGEST:
            return
        self._drop(job_id)
        self._jobs[job_id] = finished
        self._bytes += finished.size
        while len(self._jobs) > MOST_JOBS or self._bytes > MOST_BYTES:
            self._drop(next(iter(self._jobs)))

    def _forget_old(self) -> None:
        while self._jobs and self._clock() - next(iter(self._jobs.values())).at > KEPT_S:
            self._drop(next(iter(self._jobs)))

    def _drop(self, job_id: bytes) -> None:
        if (finished := self._jobs.pop(job_id, None)) is not None:
            self._bytes -= finished.size


def digest(cid: bytes, task: str, params: dict[str, Any], inputs: bytes) -> bytes:
    """What makes two requests the same job: the model, the task, the parameters and the packed inputs."""
    return hashlib.sha256(pack([cid, task, sorted(params.items()), inputs])).digest()

"""Renders chat templates in a process apart: nested loops hang for hours, a repeat fills the memory.

    {"template": …, "variables": {…}}\\n  ──►  the process  ──►  {"text": …} | {"error": …}\\n

The process is started when it is first needed, is bounded in memory, and is killed when it does not answer in time.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
import time
from typing import Any, Final

from .interface import BackendError

DEADLINE_S: Final = 5.0
#: The first answer waits for the process to start.
_START_S: Final = 15.0
#: Bytes of an answer; a character takes six of them at most.
LONGEST: Final = 32 << 20


class TemplateProcess:
    """Safe for threads: one template at a time."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(self, template: str, variables: dict[str, Any]) -> str:
        """Raises BackendError bad-input for what the template refuses, unsafe-model when it takes too much."""
        question = json.dumps({"template": template, "variables": variables}).encode() + b"\n"
        with self._lock:
            answer = self._ask(question)
        if "text" in answer:
            return str(answer["text"])
        raise BackendError(str(answer.get("code", "bad-input")), f"its chat template {answer.get('error', 'failed')}")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _ask(self, question: bytes) -> dict[str, Any]:
        deadline = time.monotonic() + self._deadline_s
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = _start()
            deadline += _START_S
        try:
            assert self._process.stdin is not None  # noqa: S101
            self._process.stdin.write(question)
            self._process.stdin.flush()
            line = self._read_line(self._process, deadline)
            answer: dict[str, Any] = json.loads(line)
        except (OSError, ValueError):
            self.close()
            return {"code": "unsafe-model", "error": "takes too much time or memory"}
        return answer

    def _read_line(self, process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """Raises OSError when the process ends, ValueError when it is late or says too much."""
        assert process.stdout is not None  # noqa: S101
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or len(line) > LONGEST:
                raise ValueError("late")
            if select.select([process.stdout], [], [], left)[0]:
                data = process.stdout.read1(1 << 16)  # type: ignore[attr-defined]
                if not data:
                    raise OSError("it ended")
                line += data
        return bytes(line)


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", f"{__package__}.render_templates"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

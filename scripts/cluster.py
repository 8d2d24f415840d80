"""Nodes as real processes on this machine: for the demo, the benches and the tests.

    with NodeProcess("desktop", folder / "desktop", "--backends", "cpu") as desktop:
        token = desktop.wait_ready()["token"]
        with NodeProcess("laptop", folder / "laptop", "--backends", "none", "--join", token) as laptop:
            laptop.wait_ready()

They listen on loopback, at a port of the system's choice, without mDNS, so clusters never find each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ipfs_accel_node import Client

T = TypeVar("T")

PROGRAM = str(Path(sys.executable).with_name("ipfs-accel-node"))
#: Longer than a node takes to drain, so that a node that stops as it should is never killed.
STOP_DEADLINE_S = 25.0
_LOOK_EVERY_S = 0.02
_TAIL_LINES = 25


def environment() -> dict[str, str]:
    """This process's environment without the settings that its user made for nodes of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("IPFS_ACCEL_")}


def make_echo_model(folder: Path, **settings: Any) -> Path:
    """A folder that the `echo` backend runs; `settings` such as `work_ms`."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "echo", "echo": settings}))
    return folder


def run_program(*arguments: object, data_dir: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command as a user runs it, with a wide terminal's width; it never ends in a traceback."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments), "--data-dir", str(data_dir)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment(), "COLUMNS": "200"},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def run_json(*arguments: object, data_dir: Path, status: int = 0) -> Any:
    """The document that a command prints with `--json` when it ends with that exit status."""
    done = run_program(*arguments, "--json", data_dir=data_dir)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


class NodeFailedError(Exception):
    """A node process did not do what it should; the message ends with what it logged."""


class NodeProcess:
    """One `ipfs-accel-node start` with a data folder of its own. A context manager: leaving stops the node."""

    def __init__(self, name: str, data_dir: Path, *args: str) -> None:
        self.name = name
        self.data_dir = data_dir
        self.ready: dict[str, Any] = {}
        self._args = args
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.stop(deadline_s=STOP_DEADLINE_S if kind is None else 5.0)
        except NodeFailedError:
            if kind is None:
                raise
        finally:
            self._sweep()

    def start(self) -> None:
        """Starts the process, in a session of its own so that a Ctrl-C here leaves stopping it to us."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._path("stdout").open("wb") as stdout, self._path("stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment(),
                start_new_session=True,
            )

    def _command(self) -> list[str]:
        fixed = ["--name", self.name, "--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--json"]
        return [PROGRAM, "start", "--data-dir", str(self.data_dir), *fixed, *self._args]

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def peer_id(self) -> str:
        return str(self.wait_ready()["peer_id"])

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def client(self) -> Client:
        self.wait_ready()
        return Client(data_dir=self.data_dir)

    def wait_ready(self, seconds: float = 30.0) -> dict[str, Any]:
        """What the node says when clients are accepted: peer_id, addresses, token, socket."""
        if not self.ready:
            self.ready = self.wait_for("ready", self._ready_line, seconds)
        return self.ready

    def wait_measured(self, cid: str, seconds: float = 120.0) -> dict[str, Any]:
        """Waits until this node measured the model; its offer, as `model ls` shows it."""
        return self._wait_offer(cid, "its own measured offer", lambda node: node == self.peer_id, seconds)

    def wait_offer(self, cid: str, seconds: float = 120.0) -> dict[str, Any]:
        """Waits until this node heard of a peer that measured the model; that peer's offer."""
        return self._wait_offer(cid, "a peer's measured offer", lambda node: node != self.peer_id, seconds)

    def wait_known(self, cid: str, seconds: float = 30.0) -> dict[str, Any]:
        """Waits until this node knows of the model, here or at a peer; the model as `model ls` shows it."""
        with self.client() as client:

            def look() -> dict[str, Any] | None:
                return next((model for model in client.models() if model["cid"] == cid), None)

            return self.wait_for(f"news of {cid}", look, seconds)

    def wait_for(self, what: str, condition: Callable[[], T | None], seconds: float) -> T:
        """Looks again and again until `condition` gives something true. Raises NodeFailedError."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            if not self.running:
                raise self._failed(f"ended with status {self._started().returncode} while waited for: {what}")
            if time.monotonic() > end:
                raise self._failed(f"waited {seconds:g} s for: {what}")
            time.sleep(_LOOK_EVERY_S)
        return value

    def send_signal(self, number: signal.Signals) -> None:
        self._started().send_signal(number)

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self._started().kill()
        self._started().wait()

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> int:
        """Asks it to stop and waits; its exit status. Raises NodeFailedError when it had to be killed."""
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"did not stop within {deadline_s:g} s of SIGTERM") from None

    def _sweep(self) -> None:
        """Ends whatever the node left behind in its session; a test that looks for leaks looks before this."""
        with suppress(ProcessLookupError):
            os.killpg(self._started().pid, signal.SIGKILL)

    def log_tail(self) -> str:
        """The end of what it printed and logged."""
        files = [self._path("stderr"), self.data_dir / "node.log"]
        lines = [line for file in files if file.exists() for line in file.read_text(errors="replace").splitlines()]
        return "\n".join(lines[-_TAIL_LINES:])

    def _wait_offer(self, cid: str, what: str, is_wanted: Callable[[str], bool], seconds: float) -> dict[str, Any]:
        with self.client() as client:

            def look() -> dict[str, Any] | None:
                offers = [offer for model in client.models() if model["cid"] == cid for offer in model["nodes"]]
                measured = [each for each in offers if is_wanted(each["node"]) and each["fixed_ms"] is not None]
                return measured[0] if measured else None

            return self.wait_for(f"{what} of {cid}", look, seconds)

    def _ready_line(self) -> dict[str, Any] | None:
        for line in self._path("stdout").read_text().splitlines(keepends=True):
            if line.endswith("\n") and line.startswith("{"):
                facts: dict[str, Any] = json.loads(line)
                if facts.get("ready"):
                    return facts
        return None

    def _path(self, suffix: str) -> Path:
        return self.data_dir / f"process.{suffix}"

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was not started"
        return self._process

    def _failed(self, message: str) -> NodeFailedError:
        return NodeFailedError(f"node {self.name}: {message}\n--- the end of its log\n{self.log_tail()}")

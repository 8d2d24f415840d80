"""Holds a job at an exact stage and strikes what computes it: for the tests of recovery and their bench.

The stages are those of jobs of the `echo` backend, see `backends/echo.py` and `node/hold_points.py`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
from cluster import NodeProcess
from ipfs_accel_node import Client

T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 20.0, what: str = "the condition") -> T:
    """What `condition` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come about within {seconds} s"
        time.sleep(0.02)
    return value


class Held:
    """The hold point of one job: waits until it is reached, lets it go."""

    def __init__(self, folder: Path, stage: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.stage = folder, stage

    @property
    def params(self) -> dict[str, str]:
        return {"hold": self.stage, "hold_dir": str(self.folder)}

    def is_reached(self) -> bool:
        return (self.folder / f"{self.stage}.held").exists()

    def wait(self) -> None:
        wait_until(self.is_reached, what=f"the stage {self.stage}")

    def forget(self) -> None:
        """Another job may be held at the same stage."""
        (self.folder / f"{self.stage}.held").unlink()

    def release(self) -> None:
        (self.folder / f"{self.stage}.go").touch()


def worker_of(node: NodeProcess) -> psutil.Process:
    (worker,) = [child for child in psutil.Process(node.pid).children() if "worker_main" in " ".join(child.cmdline())]
    return worker


def strike(node: NodeProcess, victim: str) -> None:
    """Kills the node or its worker; any other victim is a node that is stopped, as a machine that hangs."""
    match victim:
        case "node":
            node.kill()
        case "worker":
            worker_of(node).kill()
        case _:
            node.send_signal(signal.SIGSTOP)


def resources(node: NodeProcess) -> tuple[int, int]:
    """Open descriptors, and processes below the node's."""
    process = psutil.Process(node.pid)
    return process.num_fds(), len(process.children(recursive=True))


def offers_of(client: Client, cid: str) -> list[str]:
    """The names of the nodes that offer the model."""
    return [str(offer["node_name"]) for model in client.models() if model["cid"] == cid for offer in model["nodes"]]


def measured(client: Client, cid: str) -> dict[str, Any]:
    """The warm and measured offers of the model, by the names of their nodes."""
    offers = [offer for model in client.models() if model["cid"] == cid for offer in model["nodes"]]
    return {offer["node_name"]: offer for offer in offers if offer["warm"] and offer["fixed_ms"] is not None}

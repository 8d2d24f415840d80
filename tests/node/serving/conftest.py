"""Echo models, and what a process holds, for the tests with real worker processes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import psutil
import pytest
import trio
from ipfs_accel_node.node.content.cid import RAW, format_cid, make_cid
from ipfs_accel_node.node.serving.measurements import MachineLock
from ipfs_accel_node.node.serving.service import ServingService, ServingSettings
from ipfs_accel_node.node.serving.workers import Supervision
from ipfs_accel_node.protocols import values
from ipfs_accel_node.protocols.inference import Request
from striking import Held

SOON_S = 10.0


@pytest.fixture
def held(tmp_path):
    return lambda stage: Held(tmp_path / "hold", stage)


@pytest.fixture
def echo_model(tmp_path):
    def make(name="model", **settings) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "echo", "echo": settings}))
        return folder

    return make


@pytest.fixture
def until():
    """Polls, bounded: what is waited for happens in other processes."""

    async def wait(condition, what: str = "what was waited for"):
        end = time.monotonic() + SOON_S
        while not (value := condition()):
            assert time.monotonic() < end, f"{what} did not come about within {SOON_S} s"
            await trio.sleep(0.005)
        return value

    return wait


@pytest.fixture
def resources():
    """Descriptors and children of this process, zombies included."""

    def count() -> tuple[int, int]:
        process = psutil.Process()
        return process.num_fds(), len(process.children(recursive=True))

    return count


QUICK = Supervision(heartbeat_s=0.05, silence_s=0.5, stop_grace_s=1.0, first_pause_s=0.02)


class Node:
    """A service, the models it may find, and what it told."""

    def __init__(self, folder, **settings):
        self.models = {}
        self.changes = 0
        self.lock = MachineLock(folder / "lock")
        defaults = {"backends": ("echo",), "threads": 1, "memory_bytes": None, "supervision": QUICK}
        self.serving = ServingService(
            ServingSettings(**(defaults | settings)),
            model_path=self.models.get,
            cache=folder / "cache",
            measurements_path=folder / "measurements.json",
            on_change=self._changed,
            measuring_lock=self.lock,
        )

    def _changed(self):
        self.changes += 1

    async def _take_chunk(self, offset, token_ids, text):
        raise AssertionError("echo sends none")

    def add(self, folder) -> bytes:
        cid = make_cid(RAW, hashlib.sha256(str(folder).encode()).digest())
        self.models[cid] = folder
        return cid

    @property
    def slot(self):
        return self.serving._slots[0]

    async def run(self, cid, inputs="hello", *, progress=None, **fields):
        request = self.request(cid, **fields)
        with self.serving.admit(request) as admission:
            report, payload = await self.serving.execute(
                admission,
                request,
                values.pack(inputs),
                on_progress=lambda *each: progress.append(each) if progress is not None else None,
                on_chunk=self._take_chunk,
            )
        return report, values.unpack(payload)

    def is_idle(self) -> bool:
        counts = self.slot.queue.scheduler.counts
        return self.slot.queue.scheduler.length == 0 and counts.admitted == counts.finished + counts.abandoned

    @staticmethod
    def request(cid, **fields) -> Request:
        facts = {
            "job_id": os.urandom(16), "attempt": 0, "model": format_cid(cid), "task": "echo", "params": {},
            "options": {}, "remaining_ms": 30_000, "work": {"bytes": 5},
        }  # fmt: skip
        return Request(**(facts | fields))


@pytest.fixture
def make_node():
    return Node


@pytest.fixture
async def node(tmp_path, nursery, until):
    node = Node(tmp_path)
    await nursery.start(node.serving.run)
    await until(lambda: not node.serving.is_probing, "a probed backend")
    yield node
    nursery.cancel_scope.cancel()

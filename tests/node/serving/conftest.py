"""Echo models, and what a process holds, for the tests with real worker processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest
import trio

SOON_S = 10.0


class Held:
    """A hold point of the echo backend: waits until it is reached, lets it go."""

    def __init__(self, folder: Path, stage: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.stage = folder, stage

    @property
    def params(self) -> dict[str, str]:
        return {"hold": self.stage, "hold_dir": str(self.folder)}

    def is_reached(self) -> bool:
        return (self.folder / f"{self.stage}.held").exists()

    def forget(self) -> None:
        (self.folder / f"{self.stage}.held").unlink()

    def release(self) -> None:
        (self.folder / f"{self.stage}.go").touch()


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

"""The models and engines that the tests of the backends share. One thread: the machine is shared too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import real_model
from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.interface import LoadOptions
from ipfs_accel_node.backends.making import make_sentence_model

ENGINES = ("cpu", "openvino")


@pytest.fixture(scope="session")
def minilm() -> Path:
    return real_model.ensure("minilm")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return real_model.ensure("smollm2")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return make_sentence_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def load(cache):
    """Loads a folder on an engine, once."""
    loaded = {}

    def load(engine: str, folder: Path):
        if (engine, folder) not in loaded:
            options = LoadOptions(cache=cache, key=str(folder), threads=1)
            loaded[engine, folder] = registry.create(engine).load(folder, options)
        return loaded[engine, folder]

    yield load
    for model in loaded.values():
        model.close()


def mixed_up(run: Callable[[Any], Any], inputs: Sequence[Any], expected: Sequence[Any], times: int = 3) -> list[int]:
    """The places of the inputs that got another answer, each asked for from a thread of its own."""
    wrong: list[int] = []

    def ask(place: int) -> None:
        for _ in range(times):
            if run(inputs[place]) != expected[place]:
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong

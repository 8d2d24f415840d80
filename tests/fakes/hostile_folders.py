"""Spoils a model's folder in every way its JSON files offer, loads each and runs a job; prints what became of each.

    python hostile_folders.py EVERY SCRATCH FOLDER [FOLDER ...]

Of each folder's cases it takes the first and each EVERY-th. It prints a line of JSON for a case before it begins,
`["clip config.json:projection_dim=0"]`, and one when it is done: [case, outcome, code or error, seconds, MiB at most].
Outcomes: `refused` with a code, `served`, or `raised` for an error without a code. Runs as a process of its own, so
that its memory can be limited and told.
"""

from __future__ import annotations

import copy
import faulthandler
import itertools
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipfs_accel_node.backends import registry
from ipfs_accel_node.backends.interface import BackendError, LoadOptions

MOST_MEMORY = 6 << 30
MOST_SECONDS = 30
FILES = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer_config.json", "1_Pooling/config.json",
)  # fmt: skip
NUMBERS = (10_000_000, -3, 0, "many", None)


def numbers_in(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a number stands; of a list's, the first alone."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers_in(value, (*path, key))
    elif isinstance(content, list):
        if content:
            yield from numbers_in(content[0], (*path, 0))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield path


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    whole = copy.deepcopy(content)
    holder = whole
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return whole


def cases(folder: Path) -> Iterator[tuple[str, str, bytes | None]]:
    """(what it is called, the file, its bytes or None for a file taken away)"""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if file.suffix == ".json":
            yield f"no {name}", name, None
            yield f"empty {name}", name, b"{}"
            yield f"list for {name}", name, b"[1]"
    for name in FILES:
        if not (folder / name).is_file():
            continue
        content = json.loads((folder / name).read_text())
        for path in numbers_in(content):
            for value in NUMBERS:
                told = f"{name}:{'.'.join(map(str, path))}={value}"
                yield told, name, json.dumps(changed(content, path, value)).encode()


def peak() -> int:
    """MiB, since it was last set back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) >> 10


def attempt(folder: Path, cache: Path) -> tuple[str, str]:
    try:
        model = registry.create("cpu").load(folder, LoadOptions(cache=cache, key="hostile"))
        sample = model.samples()[0]
        model.run(sample.inputs, sample.params)
        model.close()
    except BackendError as error:
        return "refused", error.code
    except BaseException as error:
        return "raised", repr(error)[:200]
    return "served", ""


def main() -> None:
    every, scratch, folders = int(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    for folder in folders:
        print(json.dumps([f"{folder.name} as it is", *attempt(folder, scratch), 0, 0]), flush=True)
        for case, name, content in itertools.islice(cases(folder), 0, None, every):
            told = f"{folder.name} {case}"
            print(json.dumps([told]), flush=True)
            print(json.dumps([told, *spoil(folder, scratch / "spoilt", name, content)]), flush=True)


def spoil(folder: Path, spoilt: Path, name: str, content: bytes | None) -> tuple[str, str, float, int]:
    """What became of a copy with that one file changed."""
    shutil.copytree(folder, spoilt)
    (spoilt / name).unlink()
    if content is not None:
        (spoilt / name).write_bytes(content)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = peak(), time.monotonic()
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
    outcome, what = attempt(spoilt, spoilt.parent)
    faulthandler.cancel_dump_traceback_later()
    shutil.rmtree(spoilt)
    return outcome, what, round(time.monotonic() - began, 2), peak() - before


if __name__ == "__main__":
    main()

"""Models from a hub, such as Hugging Face: downloaded by a process apart into a folder, ready to be added.

Used by whoever asks for it, a command or a client, so that its own token and endpoint count and no node needs them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ..protocols.errors import AccelError, ErrorCode

OnProgress = Callable[[str, int, int, str], None]

#: A download that brings no byte for so long is given up.
SILENCE_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.2
_REFERENCE: Final = re.compile(
    r"(?:hf:|https://(?:www\.)?huggingface\.co/)(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<at>[\w./-]+)|/tree/(?P<tree>[\w./-]+))?/?"
)
#: What must not depend on the settings of whoever runs this.
_SETTINGS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_EXPERIMENTAL_WARNING": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "30",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Reference:
    """`repository` owner/name; `revision` a branch, tag or commit, None for the default branch."""

    repository: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return self.repository.rpartition("/")[2]


@dataclass(frozen=True)
class Download:
    """A repository's files in a folder that may be moved away, and what the hub says of them."""

    folder: Path
    repository: str
    commit: str
    license: str
    gated: bool

    @property
    def origin(self) -> str:
        return f"hf:{self.repository}@{self.commit}"


def is_reference(text: str) -> bool:
    return text.startswith(("hf:", "https://huggingface.co/", "https://www.huggingface.co/"))


def parse_reference(text: str) -> Reference:
    """`hf:owner/name`, with `@revision`, or the address of its page. Raises AccelError bad-input."""
    matched = _REFERENCE.fullmatch(text)
    if matched is None:
        raise AccelError(
            ErrorCode.BAD_INPUT,
            f"{text!r} names no model on a hub",
            "Like hf:sentence-transformers/all-MiniLM-L6-v2, or hf:owner/name@revision.",
        )
    return Reference(matched["id"], matched["at"] or matched["tree"])


@contextmanager
def downloaded(
    reference: Reference, folder: Path, on_progress: OnProgress = lambda *_: None, *, pickles: bool = False
) -> Iterator[Download]:
    """Downloads into `folder`, where an earlier try may have left something; it is removed at the end.

    What came stays there when the download fails, so that another try goes on from there.

    Args:
        pickles: also PyTorch's own files, where the repository has no safetensors.

    Raises:
        AccelError: unknown-model, gated-model, permission-denied, unsafe-model, not-a-model, disk-full, busy,
            network-unreachable, corrupt-content, backend-missing.
    """
    if find_spec("huggingface_hub") is None:
        raise AccelError(
            ErrorCode.BACKEND_MISSING,
            "models from a hub need huggingface_hub, which is not installed",
            f"{sys.executable} -m pip install 'ipfs-accel-node[hub]'",
        )
    folder.mkdir(parents=True, exist_ok=True)
    download = _Downloading(reference, folder, on_progress, pickles=pickles).run()
    shutil.rmtree(download.folder / ".cache", ignore_errors=True)
    yield download
    shutil.rmtree(folder, ignore_errors=True)


class _Downloading:
    """One run of the downloading process, watched: how much has come, whether anything comes at all."""

    def __init__(self, reference: Reference, folder: Path, on_progress: OnProgress, *, pickles: bool) -> None:
        self._reference = reference
        self._folder = folder
        self._on_progress = on_progress
        self._pickles = pickles
        self._said: dict[str, Any] = {}

    def run(self) -> Download:
        self._on_progress("asking the hub", 0, 0, "")
        with self._process() as child:
            reader = threading.Thread(target=self._read, args=(child,), daemon=True)
            reader.start()
            self._watch(child, reader)
        return self._outcome()

    @contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", f"{__package__}.content.hub_process", str(self._folder)]
        command += [self._reference.repository, "--space", str(shutil.disk_usage(self._folder).free)]
        command += ["--revision", self._reference.revision] if self._reference.revision else []
        command += ["--pickles"] if self._pickles else []
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # it ends when this does
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _SETTINGS,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()

    def _read(self, child: subprocess.Popen[bytes]) -> None:
        """Each line adds to what was said; a line has what the process found out, or how it ended."""
        for line in child.stdout or ():
            try:
                self._said |= json.loads(line)
            except ValueError:
                continue

    def _watch(self, child: subprocess.Popen[bytes], reader: threading.Thread) -> None:
        have, heard_at = -1, time.monotonic()
        while child.poll() is None:
            now, here = time.monotonic(), self._bytes_here()
            if here != have:
                have, heard_at = here, now
            if now - heard_at > SILENCE_S:
                raise self._failed(f"nothing came for {SILENCE_S:.0f} s")
            if total := self._said.get("total", 0):
                self._on_progress("downloading", min(here, total), total, "")
            time.sleep(_LOOK_EVERY_S)
        reader.join(SILENCE_S)

    def _bytes_here(self) -> int:
        """What is whole and what is on its way, which huggingface_hub keeps under `.cache` meanwhile."""
        size = 0
        for path in self._folder.rglob("*"):
            try:
                size += path.stat().st_size if path.is_file() and path.suffix not in (".metadata", ".lock") else 0
            except OSError:  # it was just renamed
                continue
        return size

    def _outcome(self) -> Download:
        if error := self._said.get("error"):
            raise AccelError(error["code"], error["message"], error["hint"])
        done = self._said.get("done")
        if not done:
            raise self._failed("it ended without an answer")
        self._on_progress("downloading", done["total"], done["total"], "")
        return Download(Path(done["folder"]), done["repository"], done["commit"], done["license"], done["gated"])

    def _failed(self, why: str) -> AccelError:
        return AccelError(
            ErrorCode.NETWORK_UNREACHABLE,
            f"the download of {self._reference.repository} failed: {why}",
            "What came is kept: the same command again goes on from there.",
        )

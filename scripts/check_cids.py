"""Compares the CIDs of generated folders with those of the JavaScript importer, and of Kubo where it is installed.

Each CID profile is tried as it is and with small numbers, around every boundary it has. Needs node and npm, 18 or
later; the importer is installed once into a folder of this user's cache. Status 1 when any CID differs.

example:
  ./scripts/check_cids
  ./scripts/check_cids --json
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from cid_cases import all_profiles, cases, write_tree
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.profiles import PROFILES, Profile
from kubo_process import KuboProcess, why_not_here
from platformdirs import user_cache_path

_IMPORTER: Final = "ipfs-unixfs-importer@17.1.1"
_SCRIPT: Final = Path(__file__).with_suffix(".mjs")
#: Profiles that the JavaScript importer has under the same name.
_ITS_OWN: Final = ("unixfs-v1-2025", "unixfs-v0-2015")
_OF_KUBO: Final = "unixfs-v0-2015"
_INSTALL_S: Final = 300
#: Kubo before 0.40 shards a folder that is exactly at the threshold.
_KUBO_DIFFERS: Final = "+0 bytes to the threshold"
#: The JavaScript importer writes a size from 2 to 4 GiB as bytes that are no number (uint8-varint), so that only Kubo
#: can be asked for such files.
_ONLY_KUBO: Final = tuple((f"a file of {size} bytes", {"file": size}) for size in (1 << 31, (1 << 31) + 1))


@dataclass
class Compared:
    """One profile with one other importer."""

    profile: str
    importer: str
    same: int = 0
    different: list[str] = field(default_factory=list)

    def note(self, about: str, ours: str, theirs: str) -> None:
        if ours == theirs:
            self.same += 1
        else:
            self.different.append(f"{about}: {ours} here, {theirs} there")


class JavaScript:
    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    def cid(self, folder: Path, profile: Profile) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        print(json.dumps({"folder": str(folder), **_options(profile)}), file=self._child.stdin, flush=True)
        return self._child.stdout.readline().strip() or sys.exit("error: the JavaScript importer ended; see above")


def _options(profile: Profile) -> dict[str, object]:
    if profile.name in _ITS_OWN and profile == PROFILES[profile.name]:
        return {"profile": profile.name}
    return {
        "chunk": profile.chunk,
        "width": profile.width,
        "cidVersion": int(len(profile.start) > 2),
        "rawLeaves": profile.leaf.kind is None,
        "strategy": "block-bytes" if profile.whole_block else "links-bytes",
        "threshold": profile.threshold,
    }


@contextmanager
def javascript() -> Iterator[JavaScript]:
    """Installs the importer where that was not done yet."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            sys.exit(f"error: {program} is needed and was not found. Install Node.js 18 or later: https://nodejs.org")
    folder = user_cache_path("ipfs-accel-node") / "check-cids" / _IMPORTER
    if not (folder / "node_modules" / "ipfs-unixfs-importer").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"Installing {_IMPORTER} into {folder}", file=sys.stderr)
        install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", _IMPORTER]
        if subprocess.run(install, cwd=folder, timeout=_INSTALL_S).returncode:
            sys.exit("error: npm could not install it; its words stand above")
    shutil.copy(_SCRIPT, folder)
    command = ["node", str(folder / _SCRIPT.name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield JavaScript(child)
        finally:
            child.kill()


def compare(profile: Profile, script: JavaScript, peer: KuboProcess | None, scratch: Path) -> list[Compared]:
    scaled = profile != PROFILES[profile.name]
    called = f"{profile.name} scaled" if scaled else profile.name
    with_script, with_kubo = Compared(called, _IMPORTER), Compared(called, "Kubo 0.22")
    asks_kubo = peer is not None and profile == PROFILES[_OF_KUBO]
    for about, tree in (*cases(profile), *(_ONLY_KUBO if asks_kubo else ())):
        folder = write_tree(scratch / "folder", tree)
        ours = format_cid(import_folder(folder, profile).root)
        if (about, tree) not in _ONLY_KUBO:
            with_script.note(about, ours, script.cid(folder, profile))
        if peer is not None and asks_kubo and about != _KUBO_DIFFERS:
            with_kubo.note(about, ours, peer.cid(folder))
        shutil.rmtree(folder)
    return [with_script, with_kubo] if asks_kubo else [with_script]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    began, found = time.monotonic(), []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        script = stack.enter_context(javascript())
        peer = None if why_not_here() else stack.enter_context(KuboProcess(scratch / "kubo"))
        for profile in all_profiles():
            for compared in compare(profile, script, peer, scratch):
                found.append(compared)
                if not options.json:
                    _tell(compared)
    if options.json:
        print(json.dumps({"seconds": time.monotonic() - began, "compared": [vars(each) for each in found]}))
    elif why := why_not_here():
        print(f"Not compared with Kubo: {why}")
    return int(any(each.different for each in found))


def _tell(compared: Compared) -> None:
    total = compared.same + len(compared.different)
    print(f"{compared.profile:22}  {compared.importer:28}  {compared.same} of {total} folders have the same CID")
    for line in compared.different:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())

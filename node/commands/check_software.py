"""What `doctor` finds of Python, the libraries and the backends, each of which has to compute."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version

from ...protocols.errors import ErrorCode
from .check import Check

_PROBE = (
    "import sys;from ipfs_accel_node.backends import registry;"
    "p=registry.create(sys.argv[1]).probe();print(f'{p.device}, {p.library}')"
)
_PROBE_TIMEOUT_S = 120
_PACKAGE = "ipfs-accel-node"
#: Fastecdsa, which libp2p brings, has no wheel for Linux: it is built, with a compiler and the headers of GMP.
_BUILD = "needs a C compiler, Python's and GMP's headers: sudo apt-get install gcc libc6-dev python3-dev libgmp-dev"
_INSTALL = "pip install ipfs-accel-node"
_TORCH = "pip install 'ipfs-accel-node[torch]' for the cpu backend"
_OPENVINO = "pip install 'ipfs-accel-node[openvino]' for the openvino backend"
REQUIRED = ("libp2p", "fastecdsa", "trio", "anyio", "msgpack", "cryptography", "multiformats", "numpy", "rich")
ENGINES = {"torch": _TORCH, "transformers": _TORCH, "tokenizers": _TORCH, "openvino": _OPENVINO,
           "optimum-intel": _OPENVINO}  # fmt: skip
_EXTRAS = ("", "torch", "openvino")


def python() -> Check:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("Python", True, True, found)
    return Check("Python", False, True, found, ErrorCode.BAD_CONFIG, "Use 3.11 to 3.13.")


def libraries() -> list[Check]:
    ranges = _declared()
    required = [
        _library(name, True, f"{name} {_BUILD}" if name == "fastecdsa" else _INSTALL, ranges) for name in REQUIRED
    ]
    return [*required, *(_library(name, False, fix, ranges) for name, fix in ENGINES.items())]


def backends() -> list[tuple[str, Callable[[], list[Check]]]]:
    """What to call each installed backend, and how to prove it."""
    found = [name for name, library in (("cpu", "torch"), ("openvino", "openvino")) if installed(library)]
    return [(f"backend {name}", partial(_backend, name)) for name in found]


def installed(name: str) -> str:
    """The version of a distribution, empty when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _declared() -> dict[str, str]:
    """The versions that this package was made for, as it says itself; nothing where it is not installed."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(each) for each in requires(_PACKAGE) or ()]
    except (ImportError, PackageNotFoundError):
        return {}
    return {
        each.name: str(each.specifier)
        for each in wanted
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in _EXTRAS)
    }


def _library(name: str, required: bool, fix: str, ranges: dict[str, str]) -> Check:
    found = installed(name)
    if not found:
        return Check(name, False, required, "not installed", ErrorCode.BACKEND_MISSING, fix)
    if not _fits(found, ranges.get(name, "")):
        why = f"{found} is not among {ranges[name]}"
        return Check(name, False, required, why, ErrorCode.LIBRARY_MISMATCH, f"pip install '{name}{ranges[name]}'")
    return Check(name, True, required, found)


def _fits(found: str, wanted: str) -> bool:
    if not wanted:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(found, prereleases=True)


def _backend(name: str) -> list[Check]:
    """Proved by computing, in a process apart."""
    what = f"backend {name}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, name], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        silent = f"did not compute within {_PROBE_TIMEOUT_S} s"
        return [Check(what, False, False, silent, ErrorCode.BACKEND_MISSING, "Reinstall its library.")]
    if done.returncode == 0:
        return [Check(what, True, False, f"computes on {done.stdout.strip()}")]
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return [Check(what, False, False, last[:200], ErrorCode.BACKEND_MISSING, "Reinstall its library.")]

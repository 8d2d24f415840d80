"""Backends by name, imported only when they are asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from .interface import Backend, BackendError

#: name → (module, class, what must be importable, the extra that brings it)
_KNOWN: Final = {
    "cpu": ("torch_backend", "TorchBackend", "torch", "torch"),
    "openvino": ("openvino_backend", "OpenVinoBackend", "openvino", "openvino"),
    "echo": ("echo", "EchoBackend", "json", ""),
}

#: Chosen by themselves where they are installed; `echo` never is.
AUTOMATIC: Final = ("cpu", "openvino")


def available() -> list[str]:
    """The automatic backends whose library is installed; whether they compute is for `probe` to show."""
    return [name for name in AUTOMATIC if _installed(name)]


def check(name: str) -> None:
    """Raises BackendError backend-missing for a name that is unknown or whose library is not installed."""
    if name not in _KNOWN:
        raise BackendError("backend-missing", f"no backend is called {name!r}", f"There are {', '.join(_KNOWN)}.")
    if not _installed(name):
        extra = _KNOWN[name][3]
        raise BackendError(
            "backend-missing",
            f"the backend {name} needs {_KNOWN[name][2]}, which is not installed",
            f"{sys.executable} -m pip install 'ipfs-accel-node[{extra}]'",
        )


def create(name: str) -> Backend:
    check(name)
    module, cls, _, _ = _KNOWN[name]
    backend: Backend = getattr(import_module(f"{__package__}.{module}"), cls)()
    return backend


def _installed(name: str) -> bool:
    return find_spec(_KNOWN[name][2]) is not None

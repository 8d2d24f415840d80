"""A peer-to-peer inference node over IPFS and libp2p.

from ipfs_accel_node import Client

with Client() as client:
    vectors = client.embed("all-minilm-l6-v2", ["a cat", "a kitten"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AccelError",
    "AsyncClient",
    "AsyncTextStream",
    "Client",
    "Generation",
    "JobError",
    "TextStream",
    "__version__",
]

_HOMES = {
    "AccelError": "ipfs_accel_node.protocols.errors",
    "JobError": "ipfs_accel_node.protocols.errors",
    "Generation": "ipfs_accel_node.node.client_text",
    "Client": "ipfs_accel_node.node.client",
    "TextStream": "ipfs_accel_node.node.client_stream",
    "AsyncClient": "ipfs_accel_node.node.async_client",
    "AsyncTextStream": "ipfs_accel_node.node.async_stream",
}

if TYPE_CHECKING:
    from ipfs_accel_node.node.async_client import AsyncClient
    from ipfs_accel_node.node.async_stream import AsyncTextStream
    from ipfs_accel_node.node.client import Client
    from ipfs_accel_node.node.client_stream import TextStream
    from ipfs_accel_node.node.client_text import Generation
    from ipfs_accel_node.protocols.errors import AccelError, JobError


def __getattr__(name: str) -> Any:
    """Resolves the public names when they are asked for, so that importing the package stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

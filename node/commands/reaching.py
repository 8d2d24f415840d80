"""Which node a command goes to: this machine's, or with `--node` another one's over TLS."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from ...protocols.client_door import TOKEN_PREFIX
from ...protocols.errors import AccelError, ErrorCode
from .. import config
from ..client import Client

_MAX_TOKEN_FILE = 65_536


class Elsewhere(NamedTuple):
    address: str
    token: str


def client_of(options: argparse.Namespace) -> Client:
    """A client of the node that the options and the environment name."""
    there = elsewhere(options)
    return Client(options.data_dir) if there is None else Client(there.address, token=there.token)


def elsewhere(options: argparse.Namespace) -> Elsewhere | None:
    """None for the node of this machine. Raises AccelError bad-config when an address or a token is alone."""
    if options.node and options.data_dir:
        raise AccelError(
            ErrorCode.BAD_CONFIG, "--node means another machine's node, --data-dir one of this machine", "Give one."
        )
    address = options.node or (None if options.data_dir else config.variable("NODE"))
    if not address:
        if options.token_file:
            raise AccelError(
                ErrorCode.BAD_CONFIG, "--token-file is for a node elsewhere", "Say which: --node HOST:PORT"
            )
        return None
    token = _read(options.token_file) if options.token_file else config.variable("CLIENT_TOKEN")
    if not token:
        raise AccelError(
            ErrorCode.BAD_CONFIG,
            f"there is no client token for {address}",
            "Put the line that `ipfs-accel-node client-token` prints there into a file of mode 0600, and name it with "
            "--token-file, or set IPFS_ACCEL_CLIENT_TOKEN.",
        )
    return Elsewhere(address, token)


def _read(file: Path) -> str:
    if str(file).startswith(TOKEN_PREFIX):
        raise AccelError(
            ErrorCode.BAD_CONFIG,
            "--token-file takes the name of a file, not the token",
            "What stands on a command line is seen by every user of the machine: make a new token.",
        )
    try:
        with file.open(encoding="utf-8") as content:
            return content.read(_MAX_TOKEN_FILE)
    except OSError as error:
        raise AccelError(ErrorCode.BAD_CONFIG, f"{file}: {error.strerror}", "Check the --token-file.") from None
    except UnicodeDecodeError:
        raise AccelError(ErrorCode.BAD_TOKEN, f"{file} holds no token", "Check the --token-file.") from None

"""What the parsers of all commands share. Imported for `--help` too, so it imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any, Final

from ...protocols.errors import AccelError

PROGRAM: Final = "ipfs-accel-node"
_DATA_DIR: Final = "the node's data folder (IPFS_ACCEL_DATA_DIR, else the one that `config show` names)"


def called_as() -> str:
    """The program as it was called, so that a line that is printed for another machine works in its clone, too."""
    called = sys.argv[0]
    return called if "/" in called and not Path(called).is_absolute() else PROGRAM


class Parser(argparse.ArgumentParser):
    """Keeps examples as they are written, and raises usage errors like all others."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> Any:
        raise AccelError("usage", message, f"{_meant(message)}Try: {self.prog} --help")


def _meant(message: str) -> str:
    """What argparse's words say was given, and what is close to it among the choices that they list."""
    found = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
    close = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1) if found else []
    return f"Did you mean {close[0]!r}? " if close else ""


def common(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Options that may stand before or after the command."""
    absent = None if top else argparse.SUPPRESS
    parser.add_argument("--data-dir", type=Path, default=absent, metavar="DIR", help=_DATA_DIR)
    parser.add_argument(
        "--json", action="store_true", default=False if top else argparse.SUPPRESS, help="print one JSON document"
    )


def add(commands: Any, name: str, command: str, about: str, example: str) -> argparse.ArgumentParser:
    """A command: `command` names its module under `commands` and its function; `example` follows the program's name."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example:\n  {PROGRAM} {example}"
    )
    common(parser)
    parser.set_defaults(command=command)
    return parser


def elsewhere(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Options of the commands that work with a node on another machine too."""
    absent = None if top else argparse.SUPPRESS
    parser.add_argument(
        "--node", default=absent, metavar="HOST:PORT", help="a node elsewhere, over TLS (IPFS_ACCEL_NODE)"
    )
    parser.add_argument(
        "--token-file", type=Path, default=absent, metavar="FILE",
        help="holds that node's client token (or IPFS_ACCEL_CLIENT_TOKEN does); never the token itself, as every user "
        "of a machine sees its command lines",
    )  # fmt: skip
    parser.set_defaults(remote=True)

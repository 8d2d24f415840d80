"""The command line. Parsing imports nothing heavy, so that `--help` is quick; a command imports what it needs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..protocols.errors import AccelError, ErrorCode

PROGRAM: Final = "ipfs-accel-node"
#: Exit status 2 says that the command or the configuration has to change, 1 that a job or a node failed.
_USAGE_CODES: Final = frozenset(
    {ErrorCode.BAD_INPUT, ErrorCode.BAD_CID, ErrorCode.BAD_TOKEN, ErrorCode.BAD_CONFIG, ErrorCode.UNKNOWN_PEER,
     ErrorCode.UNKNOWN_MODEL, ErrorCode.AMBIGUOUS_MODEL}
)  # fmt: skip
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    options = build_parser().parse_args(argv)
    if options.command is None:
        build_parser().print_help()
        return 2
    module, _, function = options.command.partition(":")
    try:
        command = getattr(import_module(f"{__package__}.commands.{module}"), function)
        return int(command(options) or 0)
    except AccelError as error:
        return _tell(error, as_json=options.json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _tell(error: AccelError, *, as_json: bool) -> int:
    """One line for a person, one document for a program, never a traceback."""
    if as_json:
        print(json.dumps({"error": error.as_dict()}))
    print(f"error: {error}", file=sys.stderr)
    return 2 if error.code in _USAGE_CODES else 1


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="A peer-to-peer inference node: models by CID, jobs to the node that finishes them first.",
        epilog=f"example:\n  {PROGRAM} start\n  {PROGRAM} model add ./all-MiniLM-L6-v2 --name minilm\n"
        f'  {PROGRAM} run minilm --input "a cat" --input "a kitten" --explain',
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    _common(parser, top=True)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_start(commands)
    _add(commands, "status", "node:status", "show this node", "status --json")
    _add(commands, "peers", "node:peers", "show the nodes that this one knows", "peers")
    _add(commands, "token", "node:token", "print the line with which another node joins this cluster", "token")
    _add_model(commands)
    _add_run(commands)
    _add(commands, "doctor", "doctor:doctor", "look for what is missing or wrong, and say what to do", "doctor")
    return parser


class _Parser(argparse.ArgumentParser):
    """Keeps examples as they are written; a usage error ends in one line and status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> Any:
        print(f"error: {message} [usage] Try: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


def _common(parser: argparse.ArgumentParser, *, top: bool = False) -> None:
    """Options that may stand before or after the command."""
    absent = None if top else argparse.SUPPRESS
    parser.add_argument("--data-dir", type=Path, default=absent, metavar="DIR", help="the node's data folder")
    parser.add_argument(
        "--json", action="store_true", default=False if top else argparse.SUPPRESS, help="print one JSON document"
    )


def _add(commands: Any, name: str, command: str, about: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example:\n  {PROGRAM} {example}"
    )
    _common(parser)
    parser.set_defaults(command=command)
    return parser


def _add_start(commands: Any) -> None:
    parser = _add(
        commands, "start", "start:start", "run a node until it is stopped", "start --join ian1…\n"
        f"  {PROGRAM} start --backends cpu,openvino --threads 4 --memory 8G"
    )  # fmt: skip
    parser.add_argument("--backends", metavar="LIST", help="cpu, openvino, echo, none, or auto (all installed)")
    parser.add_argument("--threads", metavar="N", help="threads to compute with (all cores)")
    parser.add_argument("--memory", dest="memory_bytes", metavar="SIZE", help="bound for loaded models, such as 8G")
    parser.add_argument("--precision", metavar="P", help="f32 (as trained) or bf16 (faster)")
    parser.add_argument("--name", dest="node_name", metavar="NAME", help="what others see (the host's name)")
    parser.add_argument("--listen", action="append", metavar="ADDR", help="multiaddr (/ip4/0.0.0.0/tcp/4011)")
    parser.add_argument("--peer", dest="peers", action="append", metavar="ADDR", help="a peer to link with")
    parser.add_argument("--join", metavar="TOKEN", help="join the cluster whose `token` command printed this")
    parser.add_argument("--no-mdns", dest="mdns", action="store_false", default=None, help="not on the local network")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")


def _add_model(commands: Any) -> None:
    parser = _add(commands, "model", "models:listing", "add, list, fetch and remove models", "model ls")
    models = parser.add_subparsers(title="commands", metavar="COMMAND")
    add = _add(models, "add", "models:add", "copy a Hugging Face folder in and print its CID",
               "model add ./all-MiniLM-L6-v2 --name minilm")  # fmt: skip
    add.add_argument("folder", metavar="FOLDER")
    add.add_argument("--name", help="what to call it")
    _add(models, "ls", "models:listing", "list the models of this node and its peers", "model ls")
    info = _add(models, "info", "models:info", "show one model", "model info minilm")
    info.add_argument("model", metavar="MODEL")
    get = _add(models, "get", "models:get", "fetch a model from the peers that have it", "model get bafybei…")
    get.add_argument("model", metavar="MODEL")
    get.add_argument("--name", help="what to call it here")
    remove = _add(models, "rm", "models:remove", "remove a model from this node", "model rm minilm")
    remove.add_argument("model", metavar="MODEL")


def _add_run(commands: Any) -> None:
    parser = _add(commands, "run", "jobs:run", "run a job where it finishes first",
                  'run minilm --input "a cat" --input "a kitten" --explain')  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a name, a CID, or the beginning of one")
    parser.add_argument("--input", action="append", default=[], metavar="TEXT", help="a text; - reads lines")
    parser.add_argument("--task", help="as Hugging Face calls it (the model's own)")
    parser.add_argument("--on", metavar="NODE", help="a node's name or peer id, or `local`: run it there")
    parser.add_argument("--explain", action="store_true", help="show the candidates, predictions and the reason")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds in all (300)")


def entry() -> None:
    sys.exit(main())

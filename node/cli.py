"""The command line. Parsing imports nothing heavy, so that `--help` is quick; a command imports what it needs."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..backends.precision import NAMES as PRECISIONS
from ..protocols.errors import AccelError, ErrorCode, docs_of
from .commands.parsers import add_completion, add_families, add_models, add_node, add_pins, add_repo, add_text_options
from .commands.parsing import PROGRAM, Parser
from .commands.parsing import add as _add
from .commands.parsing import common as _common
from .commands.parsing import elsewhere as _elsewhere
from .commands.whole_file import WholeFile

#: Exit status 2 says that the command or the configuration has to change, 1 that a job or a node failed.
_USAGE_CODES: Final = frozenset(
    {ErrorCode.BAD_INPUT, ErrorCode.BAD_CID, ErrorCode.BAD_TOKEN, ErrorCode.BAD_CONFIG, ErrorCode.UNKNOWN_PEER,
     ErrorCode.UNKNOWN_MODEL, ErrorCode.AMBIGUOUS_MODEL, ErrorCode.WRONG_CLIENT_TOKEN, ErrorCode.WRONG_CERTIFICATE,
     ErrorCode.OTHER_BATCH, "usage"}
)  # fmt: skip
_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = build_parser()
    as_json = "--json" in arguments
    try:
        options = parser.parse_args(arguments)
        as_json = options.json
        if options.command is None:
            parser.print_help()
            return 2
        _check_where(options)
        module, _, function = options.command.partition(":")
        command = getattr(import_module(f"{__package__}.commands.{module}"), function)
        return int(command(options) or 0)
    except AccelError as error:
        return _tell(error, as_json=as_json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        return _tell(_coded(error), as_json=as_json)


def _check_where(options: argparse.Namespace) -> None:
    """What acts on this machine says so, instead of acting here when another node was meant."""
    if (options.node or options.token_file) and not options.remote:
        raise AccelError("usage", "this command is for the node of this machine", "Leave out --node and --token-file.")


def _tell(error: AccelError, *, as_json: bool) -> int:
    """One line for a person, one document for a program, never a traceback."""
    if as_json:
        print(json.dumps({"error": {**error.as_dict(), "docs": docs_of(error.code)}}))
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return 2 if error.code in _USAGE_CODES else 1


def _coded(error: OSError) -> AccelError:
    """What the system refused, in one line: its reason and its file are all there is to say."""
    codes = {errno.EACCES: ErrorCode.PERMISSION_DENIED, errno.EPERM: ErrorCode.PERMISSION_DENIED}
    codes |= dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), ErrorCode.BAD_CONFIG)
    code = {**codes, errno.ENOSPC: ErrorCode.DISK_FULL}.get(error.errno or 0, ErrorCode.INTERNAL)
    return AccelError(code, str(error))


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="A peer-to-peer inference node: models by CID, jobs to the node that finishes them first.",
        epilog=f"example:\n  {PROGRAM} start\n  {PROGRAM} model add ./all-MiniLM-L6-v2 --name minilm\n"
        f'  {PROGRAM} run minilm --input "a cat" --input "a kitten" --explain',
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    _common(parser, top=True)
    _elsewhere(parser, top=True)
    parser.set_defaults(command=None, remote=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_start(commands)
    add_node(commands)
    _add_client_token(commands)
    _add_config(commands)
    add_models(commands)
    add_pins(commands)
    add_repo(commands)
    _add_run(commands)
    add_completion(commands)
    add_families(commands)
    _add(commands, "doctor", "doctor:doctor", "look for what is missing or wrong, and say what to do", "doctor")
    return parser


def _add_start(commands: Any) -> None:
    parser = _add(
        commands, "start", "start:start", "run a node until it is stopped", "start --join ian1…\n"
        f"  {PROGRAM} start --backends cpu,openvino --threads 4 --memory 8G"
    )  # fmt: skip
    _settings(parser)


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backends", metavar="LIST", help="cpu, openvino, echo, none, or auto (all installed)")
    parser.add_argument("--threads", metavar="N", help="threads to compute with (all cores)")
    parser.add_argument("--memory", dest="memory_bytes", metavar="SIZE", help="bound for loaded models, such as 8G")
    parser.add_argument("--disk-limit", metavar="SIZE", help="bound for the models on disk, such as 200G (the disk)")
    parser.add_argument(
        "--pin-grace", dest="pin_grace_s", metavar="S", help="seconds a holder of a pin may be gone (300)"
    )
    parser.add_argument("--cid-profile", metavar="NAME", help="how `model add` makes CIDs (unixfs-v1-2025)")
    parser.add_argument("--precision", metavar="P", help="auto, f32, bf16, fp16, int8 or int4 (language models)")
    parser.add_argument("--name", dest="node_name", metavar="NAME", help="what others see (the host's name)")
    parser.add_argument("--listen", action="append", metavar="ADDR", help="multiaddr (/ip4/0.0.0.0/tcp/4011)")
    parser.add_argument("--peer", dest="peers", action="append", metavar="ADDR", help="a peer to link with")
    parser.add_argument("--join", metavar="TOKEN", help="join the cluster whose `token` command printed this")
    parser.add_argument("--no-mdns", dest="mdns", action="store_false", default=None, help="not on the local network")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--log-json", action="store_true", default=None, help="one JSON object a line in node.log")
    parser.add_argument(
        "--listen-clients", metavar="HOST:PORT", help="take clients from other machines too, over TLS (off)"
    )
    parser.add_argument("--kubo", metavar="ADDR", help="the RPC of an IPFS daemon (/ip4/127.0.0.1/tcp/5001, a URL)")
    parser.add_argument("--kubo-publish", action="store_true", default=None, help="give what is added here to it, too")
    parser.add_argument("--gateway", dest="gateways", action="append", metavar="URL", help="an IPFS gateway for blocks")
    parser.set_defaults(kubo_auth=None)  # a password does not belong where every process sees it
    parser.add_argument(
        "--public", action="store_true", default=None, help="give models that are not gated to any IPFS peer (off)"
    )
    parser.add_argument(
        "--ipfs-peer", dest="ipfs_peers", action="append", metavar="ADDR", help="an IPFS peer to fetch from"
    )


def _add_client_token(commands: Any) -> None:
    parser = _add(commands, "client-token", "node:client_token",
                  "print what lets clients on other machines use this node", "client-token --new")  # fmt: skip
    parser.add_argument("--new", action="store_true", help="make a new one; the old one is refused from then on")


def _add_config(commands: Any) -> None:
    parser = _add(commands, "config", "settings:show", "show the configuration", "config show")
    parts = parser.add_subparsers(title="commands", metavar="COMMAND")
    show = _add(parts, "show", "settings:show", "show each setting, its value and where it came from",
                f"config show\n  {PROGRAM} config show --threads 4")  # fmt: skip
    _add(parts, "path", "settings:path", "print where config.toml stands or would stand", "config path")
    _settings(show)


def _add_run(commands: Any) -> None:
    parser = _add(commands, "run", "jobs:run", "run a job where it finishes first",
                  'run minilm --input "a cat" --input "a kitten" --explain\n'
                  f"  {PROGRAM} run minilm --batch in.jsonl --out out.jsonl")  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a name, a CID, or the beginning of one")
    parser.add_argument("--input", action="append", default=[], metavar="TEXT", help="a text; - reads lines")
    parser.add_argument(
        "--input-file", dest="input", action="append", type=Path, metavar="FILE", help="a file, each line a text"
    )
    _add_batch(parser)
    add_text_options(parser)
    parser.add_argument("--task", help="as Hugging Face calls it (the model's own)")
    parser.add_argument("--on", metavar="NODE", help="a node's name or peer id, or `local`: run it there")
    parser.add_argument("--precision", choices=PRECISIONS, help="run it only where it runs in that")
    _elsewhere(parser)
    parser.add_argument("--explain", action="store_true", help="show the candidates, predictions and the reason")
    parser.add_argument(
        "--timeout", type=float, default=300.0, metavar="S", help="seconds in all, of --batch for each line (300)"
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file", dest="input", action="append", type=WholeFile, metavar="FILE", help="a whole file, one input"
    )
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the task")
    line = '"a text" or {"input": …, "params": {…}, "id": …}'
    parser.add_argument("--batch", type=Path, metavar="IN", help=f"a file of JSON lines, each a job: {line}")
    parser.add_argument(
        "--out", type=Path, metavar="OUT", help="where the results of --batch go; the same command again goes on there"
    )
    parser.add_argument("--retry-errors", action="store_true", help="do those lines of --batch again that failed")
    parser.add_argument("--concurrency", type=int, metavar="N", help="jobs of --batch at once (twice the backends)")


def entry() -> None:
    """The program. A reader that leaves early, as `head` does, and a terminal without these letters are no errors."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks; the configuration, which reads all else, takes long to import
        from .commands.completion import complete

        complete(build_parser())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = _flushed(main)
    except BrokenPipeError:
        status = 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        status = _tell(_coded(error), as_json=False)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _flushed(program: Callable[[], int]) -> int:
    """Writes everything out while its failing can still be told; `--help` ends by SystemExit."""
    try:
        return program()
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()

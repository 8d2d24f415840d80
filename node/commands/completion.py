"""Completion for bash, zsh and fish, by argcomplete: the shell runs the program with what was typed so far.

Models and nodes are those of the running node. It is asked for a moment only; without it there is nothing to offer.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final

from ...backends.precision import AUTO
from ...backends.precision import NAMES as PRECISIONS
from .output import print_json, size
from .parsing import PROGRAM

_DEADLINE_S: Final = 0.5
#: What a peer calls itself or its models reaches a shell: only what no shell gives a meaning is offered.
_HARMLESS: Final = re.compile(r"[A-Za-z0-9_.@+/-]{1,128}")
_CHOICES: Final = {
    "backends": ("auto", "cpu", "echo", "none", "openvino"),
    "precision": (AUTO, *PRECISIONS),
    "log_level": ("debug", "info", "warning", "error"),
}
_FOLDERS: Final = frozenset({"folder", "source", "data_dir", "out_folder"})
_FILES: Final = frozenset({"file"})

Answer = dict[str, str]


def completion(options: argparse.Namespace) -> None:
    """Prints the script that the shell reads."""
    from argcomplete.shell_integration import shellcode

    script = None
    if options.shell == "fish" and shutil.which(PROGRAM) is None:
        script = str(Path(sys.argv[0]).absolute())  # the other shells call what was typed
    code = shellcode([PROGRAM], shell=options.shell, complete_arguments=["-o", "nospace"], argcomplete_script=script)
    print_json({"shell": options.shell, "script": code}) if options.json else print(code)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell that asks through argcomplete's variables, and ends the process."""
    import argcomplete

    for action in _actions(parser):
        action.completer = _completer(action)  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=_nothing)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
        elif action.choices is None and action.nargs != 0:
            yield action


def _completer(action: argparse.Action) -> Callable[..., Answer]:
    """By what the argument is called, so that a new command's arguments complete as those of the others do."""
    if action.dest == "model":
        return _models
    if action.dest == "on":
        return _nodes
    if action.dest in _CHOICES:
        return partial(_chosen, _CHOICES[action.dest])
    if action.dest in _FOLDERS | _FILES or action.type is Path:
        return partial(_paths, folders=action.dest in _FOLDERS)
    return _nothing


def _nothing(**_: Any) -> Answer:
    return {}


def _chosen(choices: tuple[str, ...], **_: Any) -> Answer:
    return dict.fromkeys(choices, "")


def _models(prefix: str, parser: argparse.ArgumentParser, parsed_args: argparse.Namespace, **_: Any) -> Answer:
    """Names, and CIDs where there is no name or one was begun."""
    fitting = _FITTING.get(parser.get_default("command"))
    found: dict[str, str] = {}
    for model in _asked(parsed_args, "models"):
        names = [model["name"], model["cid"]] if prefix.startswith(("bafy", "Qm")) else [model["name"] or model["cid"]]
        if fitting is None or fitting(model):
            found |= {name: size(model["size"]) for name in names}
    return _harmless(found)


#: Which models a command can do something with.
_FITTING: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "models:get": lambda model: not model["here"],
    "models:remove": lambda model: model["here"] and not model["pinned"],
    "pins:add": lambda model: not model["pinned"],
    "pins:remove": lambda model: model["pinned"],
}


def _nodes(parsed_args: argparse.Namespace, **_: Any) -> Answer:
    return {"local": "this node"} | _harmless({peer["name"]: peer["state"] for peer in _asked(parsed_args, "peers")})


def _harmless(found: Answer) -> Answer:
    return {
        name: about if _HARMLESS.fullmatch(about.replace(" ", "")) else ""
        for name, about in found.items()
        if _HARMLESS.fullmatch(name)
    }


def _asked(options: argparse.Namespace, method: str) -> list[dict[str, Any]]:
    """What the running node answers at once; nothing when it does not, or there is none."""
    from ..client import Client

    answers: list[list[dict[str, Any]]] = []

    def ask() -> None:
        with suppress(Exception), Client(getattr(options, "data_dir", None)) as client:
            answers.append(getattr(client, method)(timeout=_DEADLINE_S))

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_DEADLINE_S)
    return answers[0] if answers else []


def _paths(prefix: str, *, folders: bool, **_: Any) -> Answer:
    """Files and folders that begin so, as they were typed; hidden ones when they are asked for."""
    typed, slash, begun = prefix.rpartition("/")
    typed += slash
    try:
        entries = sorted(Path(typed).expanduser().iterdir())
    except (OSError, RuntimeError):
        return {}
    return {
        typed + entry.name + ("/" if entry.is_dir() else ""): ""
        for entry in entries
        if entry.name.startswith(begun) and (begun or not entry.name.startswith("."))
        if entry.name.isprintable() and (entry.is_dir() or not folders)
    }

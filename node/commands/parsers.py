"""The parsers of the commands that show and steer a running node, beside those in `cli`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ...backends.making_shapes import MADE, SIZES, TINY
from ..content.profile_names import NAMES
from .parsing import PROGRAM, add, elsewhere


def add_node(commands: Any) -> None:
    elsewhere(add(commands, "status", "node:status", "show this node", "status --json"))
    elsewhere(add(commands, "peers", "node:peers", "show the nodes that this one knows", "peers"))
    _add_top(commands)
    _add_pause(commands)
    add(commands, "token", "node:token", "print the line with which another node joins this cluster", "token")


def add_models(commands: Any) -> None:
    parser = add(commands, "model", "models:listing", "add, list, fetch and remove models", "model ls")
    elsewhere(parser)
    models = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_adding(models)
    _add_cid(models)
    _add_making(models)
    listing = add(models, "ls", "models:listing", "list the models of this node and its peers", "model ls")
    info = add(models, "info", "models:info", "show one model", "model info minilm")
    info.add_argument("model", metavar="MODEL")
    get = add(models, "get", "models:get", "fetch a model from the peers that have it", "model get bafybei…\n"
              f"  {PROGRAM} model get bafybei… --from /ip4/192.168.1.5/tcp/4001/p2p/12D3KooW…")  # fmt: skip
    get.add_argument("model", metavar="MODEL")
    get.add_argument("--name", help="what to call it here")
    get.add_argument(
        "--from", dest="ipfs_peers", action="append", default=[], metavar="ADDR", help="an IPFS peer that has it"
    )
    _add_car(models)
    publishing = _add_publishing(models)
    remove = add(models, "rm", "models:remove", "remove a model from this node", "model rm minilm")
    remove.add_argument("model", metavar="MODEL")
    for each in (listing, info, get, *publishing, remove):
        elsewhere(each)


def _add_publishing(models: Any) -> list[argparse.ArgumentParser]:
    publish = add(models, "publish", "publishing:publish", "give a model to the node's IPFS daemon and pin it there",
                  "model publish minilm")  # fmt: skip
    publish.add_argument(
        "--as-files", action="store_true", help="file by file, for a daemon that has no dag/import; its CID must agree"
    )
    unpublish = add(models, "unpublish", "publishing:unpublish", "unpin at the IPFS daemon what was published",
                    "model unpublish minilm")  # fmt: skip
    providers = add(models, "providers", "publishing:providers", "show who has a model: nodes, and peers of IPFS",
                    "model providers minilm\n"
                    f"  {PROGRAM} model providers bafybei… --json")  # fmt: skip
    for each in (publish, unpublish, providers):
        each.add_argument("model", metavar="MODEL")
    providers.description = (
        f"{providers.description} The node's IPFS daemon (--kubo) asks the DHT, for 15 seconds at most, and for a "
        "gated model never."
    )
    return [publish, unpublish, providers]


def _add_adding(models: Any) -> None:
    adding = add(models, "add", "models:add", "add a Hugging Face folder, or a model of a hub, and print its CID",
                 "model add ./all-MiniLM-L6-v2 --name minilm\n"
                 f"  {PROGRAM} model add hf:HuggingFaceTB/SmolLM2-135M-Instruct\n"
                 f"  {PROGRAM} model add hf:facebook/opt-125m --convert")  # fmt: skip
    adding.add_argument("source", metavar="FOLDER|hf:OWNER/NAME[@REVISION]")
    adding.add_argument("--name", help="what to call it (a hub's name for it)")
    adding.add_argument(
        "--convert", action="store_true", help="turn pickled weights into safetensors, in a process apart"
    )
    adding.add_argument("--license", default="", metavar="NAME", help="note its licence (what the hub says)")
    adding.add_argument(
        "--gated", action="store_true", help="note that it may not leave the cluster (what the hub says)"
    )
    adding.add_argument("--anyway", action="store_true", help="also a folder that is no model that could be run")
    _add_profile(adding)
    adding.set_defaults(remote=False)


def _add_car(models: Any) -> None:
    exporting = add(models, "export", "car:export_model", "write a model into a CAR file, which IPFS programs read",
                    "model export minilm minilm.car\n"
                    f"  {PROGRAM} model export minilm - | ssh desk {PROGRAM} model import -")  # fmt: skip
    exporting.add_argument("model", metavar="MODEL")
    exporting.add_argument("file", metavar="FILE", help="a file that is not there yet, or - for standard output")
    importing = add(models, "import", "car:import_model", "take a model out of a CAR file, every block checked",
                    "model import minilm.car --name minilm")  # fmt: skip
    importing.add_argument("file", metavar="FILE", help="a CAR file, or - for standard input")
    importing.add_argument("--name", help="what to call it here")
    importing.add_argument("--root", metavar="CID", help="the model's CID, where the file names several roots")
    importing.add_argument("--license", default="", metavar="NAME", help="note its licence")
    importing.add_argument("--gated", action="store_true", help="note that it may not leave the cluster")
    for each in (exporting, importing):
        each.set_defaults(remote=False)


def _add_cid(models: Any) -> None:
    naming = add(models, "cid", "models:cid", "print the CID that a folder has, without adding it",
                 f"model cid ./all-MiniLM-L6-v2\n  {PROGRAM} model cid ./all-MiniLM-L6-v2 --cid-profile unixfs-v0-2015"
                 )  # fmt: skip
    naming.add_argument("folder", metavar="FOLDER")
    _add_profile(naming)
    naming.set_defaults(remote=False)


def _add_making(models: Any) -> None:
    catalog = add(models, "catalog", "catalog:catalog", "list published checkpoints and the commands that add them",
                  "model catalog")  # fmt: skip
    find = add(models, "find", "catalog:find", "look for models that other programs have on this disk",
               f"model find\n  {PROGRAM} model find minilm --json")  # fmt: skip
    find.add_argument("name", metavar="NAME", nargs="?", default="", help="a part of the name (all)")
    find.description = f"{find.description} {_CACHES}"
    making = add(models, "make", "making:make", "make a model with random weights, without network, and add it",
                 f"model make opt\n  {PROGRAM} model make clip --size reference --name clip-random\n"
                 f"  {PROGRAM} model make bert --out ./bert")  # fmt: skip
    making.add_argument("family", metavar="FAMILY", choices=tuple(MADE), help=", ".join(MADE))
    making.add_argument("--size", choices=SIZES, default=TINY, help="tiny, or reference: shaped as a published one")
    making.add_argument("--name", help="what to call it (FAMILY-SIZE-random)")
    making.add_argument("--seed", type=int, default=0, metavar="N", help="another one makes another model (0)")
    making.add_argument(
        "--out", dest="out_folder", type=Path, metavar="DIR", help="only write the folder, which must not be there yet"
    )
    making.description = f"{making.description} What it computes means nothing, and its results say so."
    making.set_defaults(license="", gated=False, anyway=False, cid_profile=None)
    for each in (catalog, find, making):
        each.set_defaults(remote=False)


_CACHES = (
    "The caches of Hugging Face, sentence-transformers and torch hub are looked through, where HF_HUB_CACHE, HF_HOME, "
    "SENTENCE_TRANSFORMERS_HOME and TORCH_HOME, or their defaults, say that they are."
)


def _add_profile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cid-profile", metavar="NAME", help=f"{', '.join(NAMES)} (as configured: cid_profile)")
    parser.epilog = f"{_WHAT_COUNTS}\n\n{parser.epilog}"


_WHAT_COUNTS = """what makes the CID, whatever the profile:
  every file in the folder and in those below it, by its name and its bytes; empty folders;
  symbolic links that stay inside the folder, as links
what does not:
  entries whose names begin with a dot, such as .git and .cache; dates and permissions
refused:
  links that leave the folder, except those of a Hugging Face cache, which are followed;
  links that lead to nothing, and anything that is no file, folder or link"""


def add_pins(commands: Any) -> None:
    parser = add(commands, "pin", "pins:listing", "keep models here, or among the nodes of the cluster", "pin ls")
    pins = parser.add_subparsers(title="commands", metavar="COMMAND")
    pin = add(pins, "add", "pins:add", "pin a model; one that only peers have is fetched first",
              f"pin add minilm\n  {PROGRAM} pin add minilm --cluster --replicas 2:3")  # fmt: skip
    pin.add_argument("--replicas", metavar="MIN:MAX", help="how many nodes hold it at least and at most (all nodes)")
    add(pins, "ls", "pins:listing", "list what is pinned here and by the cluster, and who holds it", "pin ls")
    unpin = add(pins, "rm", "pins:remove", "unpin a model, so that it may be removed",
                f"pin rm minilm\n  {PROGRAM} pin rm minilm --cluster")  # fmt: skip
    meanings = (pin, "the nodes of the cluster keep it among them"), (unpin, "the cluster's pin, everywhere")
    for each, meaning in meanings:
        each.add_argument("model", metavar="MODEL")
        each.add_argument("--cluster", action="store_true", help=meaning)


def add_families(commands: Any) -> None:
    trying = add(commands, "families", "families:families", "run each family of models on each backend here",
                 f"families\n  {PROGRAM} families bert whisper --backend openvino --json")  # fmt: skip
    trying.add_argument("families", metavar="FAMILY", nargs="*", default=[], help="some of them (all)")
    trying.add_argument("--backend", dest="backends", action="append", default=[], metavar="B", help="one (all)")
    trying.description = (
        f"{trying.description} Each is tried with a tiny model that has random weights; status 1 if one fails."
    )
    trying.set_defaults(remote=False)


def add_repo(commands: Any) -> None:
    parser = add(commands, "repo", "repo:stat", "see, clean and check what is stored here", "repo stat")
    repo = parser.add_subparsers(title="commands", metavar="COMMAND")
    add(repo, "stat", "repo:stat", "show what the models take on this disk", "repo stat")
    collecting = add(repo, "gc", "repo:gc", "remove what nothing needs: leftovers, and what is over the disk limit",
                     f"repo gc --dry-run\n  {PROGRAM} repo gc --unpinned")  # fmt: skip
    collecting.add_argument("--unpinned", action="store_true", help="also every model that is not pinned or in use")
    collecting.add_argument("--dry-run", action="store_true", help="only say what would go")
    checking = add(repo, "verify", "repo:verify", "read the models again and name what is damaged; status 1 if any is",
                   f"repo verify\n  {PROGRAM} repo verify minilm --repair")  # fmt: skip
    checking.add_argument("model", metavar="MODEL", nargs="?", help="one model (all that are here)")
    checking.add_argument(
        "--repair", action="store_true", help="fetch what is damaged from peers; needs a running node"
    )


def _add_top(commands: Any) -> None:
    top = add(commands, "top", "top:top", "watch the node, its peers, models and jobs", "top\n"
              f"  {PROGRAM} top --json --count 1")  # fmt: skip
    elsewhere(top)
    top.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between two looks (1)")
    top.add_argument("--count", type=int, metavar="N", help="look N times and end")


def _add_pause(commands: Any) -> None:
    pause = add(commands, "pause", "node:pause", "compute no new jobs here; they go to peers until `resume`",
                "pause --wait --timeout 60")  # fmt: skip
    pause.add_argument("--wait", action="store_true", help="return when nothing runs here any more")
    pause.add_argument("--timeout", type=float, default=300.0, metavar="S", help="seconds to wait at most (300)")
    pause.description = f"{pause.description} A node that is restarted is not paused."
    add(commands, "resume", "node:resume", "compute jobs here again", "resume")


def add_completion(commands: Any) -> None:
    completion = add(commands, "completion", "completion:completion", "print a shell's completion script", _PLACES)
    completion.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


_PLACES = f"""completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}
  {PROGRAM} completion zsh > "${{fpath[1]}}/_{PROGRAM}"
  {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish

or, for bash without the bash-completion package, a line in ~/.bashrc:
  eval "$({PROGRAM} completion bash)"

Commands, models and nodes are completed; what is asked for comes from the running node."""


def add_text_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models that write text", "each --input is a message to the assistant")
    group.add_argument("--stream", action="store_true", help="print the text while it is written")
    group.add_argument("--system", metavar="TEXT", help="what the assistant is told before the message")
    group.add_argument("--raw", action="store_true", help="go on from --input as it stands, without a chat template")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="tokens to write at most (256)")
    group.add_argument("--temperature", type=float, metavar="T", help="0, the best token each time, or above: drawn")
    group.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest tokens that make up P")
    group.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    group.add_argument("--seed", type=int, metavar="N", help="makes what is drawn repeatable")
    group.add_argument("--repetition-penalty", type=float, metavar="X", help="above 1: say less again (the model's)")
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be given again")

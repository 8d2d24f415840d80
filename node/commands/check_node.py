"""What `doctor` hears from the running node: its backends, the models that do not load, the peers it does not reach."""

from __future__ import annotations

from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..config import Config
from . import panels
from .check import Check
from .output import count

_NODE_TIMEOUT_S = 10
_MOST_PEERS = 8


def node(config: Config) -> list[Check]:
    """The first of them tells whether it runs."""
    try:
        from ..client import Client

        with Client(config.data_dir) as client:
            facts = client.status(timeout=_NODE_TIMEOUT_S)
            known = client.models(timeout=_NODE_TIMEOUT_S)
    except ImportError as error:
        install = "pip install ipfs-accel-node"
        return [Check("node", False, False, f"cannot be asked: {error}", ErrorCode.BACKEND_MISSING, install)]
    except AccelError as error:
        if error.code == ErrorCode.NOT_RUNNING:
            return [Check("node", False, False, "not running", error.code, error.hint)]
        fix = "See the node's log; stop it with SIGKILL and start it again."
        return [Check("node", False, True, error.message, error.code, fix)]
    return [_itself(facts), *_backends(facts), *_models(facts), *_unknown(known), *_damaged(known), *_unlinked(facts)]


def _itself(facts: dict[str, Any]) -> Check:
    shown = f"{facts['state']}, {count(facts['peers'], 'peer')}, {count(facts['models'], 'model')}"
    if facts["state"] == "paused":
        return Check("node", True, False, shown, ErrorCode.PAUSED, "It computes again after: ipfs-accel-node resume")
    return Check("node", True, False, shown)


def _backends(facts: dict[str, Any]) -> list[Check]:
    return [_backend(each) for each in facts["backends"]]


def _backend(facts: dict[str, Any]) -> Check:
    what = f"node's {facts['name']}"
    if facts["state"] != "failed":
        return Check(what, True, False, f"{facts['state']}, {facts['queued']} queued")
    why = f"failed: {facts['reason'] or 'no reason given'}"
    return Check(what, False, False, why, ErrorCode.NO_BACKEND, "See the node's log, then start it again.")


def _models(facts: dict[str, Any]) -> list[Check]:
    return [
        Check(
            f"model {model['name'] or model['cid'][:12]}",
            False,
            False,
            f"does not run on {backend['name']}: {model['error']['message']}",
            model["error"]["code"],
            model["error"]["hint"] or "See `ipfs-accel-node status`.",
        )
        for backend in facts["backends"]
        for model in backend["models"]
        if model["error"]
    ]


def _unknown(known: list[dict[str, Any]]) -> list[Check]:
    """What lies here and is nothing that this version runs."""
    why, fix = "no task that can be run here", "The node's log says why; `model rm` makes room."
    return [
        Check(f"model {model['name'] or model['cid'][:12]}", False, False, why, ErrorCode.NOT_A_MODEL, fix)
        for model in known
        if model["here"] and not model["task"]
    ]


def _damaged(known: list[dict[str, Any]]) -> list[Check]:
    """What `repo verify` found since the node started."""
    return [
        Check(
            f"model {model['name'] or model['cid'][:12]}",
            False,
            True,
            f"{count(len(model['damaged']), 'file')} damaged on disk",
            ErrorCode.CORRUPT_CONTENT,
            f"Fetch them from peers: ipfs-accel-node repo verify {model['name'] or model['cid']} --repair",
        )
        for model in known
        if model.get("damaged")
    ]


def _unlinked(facts: dict[str, Any]) -> list[Check]:
    return [
        Check("peer", False, False, panels.unlinked(each), each["code"], each["hint"] or _REACH)
        for each in facts["unlinked"][:_MOST_PEERS]
    ]


_REACH = "See that it runs, and that no firewall closes its port."

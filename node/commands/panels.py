"""What people look at, as `rich` renderables: `status`, `peers` and `top` are made of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .output import add_line, count, duration, safe, short_peer, size, state_style, table

if TYPE_CHECKING:
    from rich.table import Table

Facts = dict[str, Any]

_BAR: Final = 8
#: States of a model on a backend in which nothing happens to it.
_AT_REST: Final = frozenset({"warm", "cold"})
_SHORT_CID: Final = 12


def header(facts: Facts, *, whole_id: bool = False) -> list[str]:
    """Some lines: who this node is and what it has; what its jobs did; whether it is public."""
    peer = facts["peer_id"] if whole_id else short_peer(facts["peer_id"])
    jobs, memory = facts["jobs"], facts["memory"]
    told = [f"[bold]{jobs['running']} running[/]" if jobs["running"] else "none running", f"{jobs['completed']} done"]
    told += [f"[yellow]{jobs['failed']} failed[/]"] if jobs["failed"] else []
    return [
        f"[bold]{safe(facts['node_name'])}[/]  {state_style(facts['state'])}  [dim]{safe(peer)}[/]",
        f"up {duration(facts['uptime_s'])} · {count(facts['peers'], 'peer')} · {count(facts['models'], 'model')} · "
        f"{size(memory['used'])} of {size(memory['limit'])} for models",
        "jobs: " + " · ".join(told),
        *_public(facts),
    ]


def _public(facts: Facts) -> list[str]:
    """Nothing for a node that gives blocks to its cluster only."""
    if not facts.get("public"):
        return []
    ipfs = facts["ipfs"]
    given = f"{count(ipfs['peers'], 'IPFS peer')} now, {size(ipfs['sent'])} given"
    return [f"[yellow]public[/]: models that are not gated go to any IPFS peer · {given}"]


def backends(facts: Facts) -> Table:
    rows = table("backend", "device", "state", "queue", ">wait", "doing")
    for backend in facts["backends"]:
        add_line(
            rows,
            safe(backend["name"]),
            safe(backend["device"]),
            state_style(backend["state"]),
            queue_bar(backend["queued"]),
            duration(backend["wait_s"]) if backend["wait_s"] else "[dim]–[/]",
            _doing(backend),
        )
    return rows


def queue_bar(queued: int) -> str:
    """A cell a job, as far as there are cells, and their number."""
    colour = "green" if queued <= 2 else "yellow" if queued <= _BAR else "red"
    filled = min(queued, _BAR)
    return f"[{colour}]{'■' * filled}[/][dim]{'·' * (_BAR - filled)}[/] {queued}"


def jobs(running: Sequence[Facts], total: int) -> Table:
    """Open jobs; `total` tells how many there are, as not all may be listed."""
    rows = table("job", "from", "model", "task", "runs on", ">for", ">tokens")
    for job in running:
        place = f"{safe(job['node_name'])} [dim]{safe(job['backend'])}[/]" if job["node_name"] else "[dim]waiting[/]"
        add_line(
            rows,
            safe(job["job_id"][:8]),
            "here" if job["own"] else "[dim]peer[/]",
            _short(job["model"]),
            safe(job["task"]),
            place,
            duration(job["seconds"]),
            str(job["tokens"]) if job["tokens"] else "[dim]–[/]",
        )
    if total > len(running):
        add_line(rows, f"[dim]and {total - len(running)} more[/]")
    return rows


def peers(known: Iterable[Facts]) -> Table:
    rows = table("node", "peer", "state", ">round trip", ">rate", "backends", ">queued", ">models")
    for peer in sorted(known, key=lambda each: str(each["name"])):
        ready = ", ".join(safe(backend["name"]) for backend in peer["backends"] if backend["state"] == "ready")
        add_line(
            rows,
            safe(peer["name"]),
            short_peer(peer["peer_id"]),
            state_style(peer["state"] if peer["linked"] else "not linked"),
            duration(peer["rtt_ms"] / 1e3) if peer["rtt_ms"] else "[dim]–[/]",
            f"{size(peer['bandwidth'])}/s" if peer["bandwidth"] else "[dim]–[/]",
            ready or "[dim]none[/]",
            str(sum(backend["queued"] for backend in peer["backends"])),
            str(len(peer["models"])),
        )
    return rows


def models(known: Iterable[Facts], *, whole: bool = True) -> Table:
    """The cluster's models, a line an offer; not `whole` leaves out what little room has no place for."""
    columns = ("model", "CID", ">size", "here", "node", "backend", ">1 KiB text", "state")
    rows = table(*(columns if whole else ("model", ">size", "node", "backend", ">1 KiB text", "state")))
    for model in known:
        name = safe(model["name"]) or ("[dim]no name[/]" if whole else f"[dim]{model['cid'][:_SHORT_CID]}…[/]")
        here = "[green]pinned[/]" if model["pinned"] else "[green]●[/]" if model["here"] else ""
        cid = model["cid"][:_SHORT_CID] + "…"
        shown = (name, cid, size(model["size"]), here) if whole else (name, size(model["size"]))
        for place, offer in enumerate(model["nodes"] or [{}]):
            add_line(rows, *(shown if place == 0 else ("",) * len(shown)), *offer_row(offer))
    return rows


def unlinked(failed: Facts) -> str:
    """Which peer cannot be reached and why; the reason often names the address itself."""
    address, why = str(failed["address"]), str(failed["message"])
    return why if why.startswith(address) else f"{address}: {why}"


def offer_row(offer: Facts) -> tuple[str, ...]:
    """Node, backend, speed, state; nothing of a model that nobody runs."""
    if not offer:
        return ("", "", "", "")
    if offer["fixed_ms"] is None:
        speed = "[dim]unmeasured[/]"
    else:
        speed = duration((offer["fixed_ms"] + offer["per_kib_ms"]) / 1e3)
    state = "[green]warm[/]" if offer["warm"] else "[yellow]cold[/]"
    return safe(offer["node_name"]), safe(offer["backend"]), speed, state


def _doing(backend: Facts) -> str:
    """What happens to its models now; else why it does not work, or which model failed on it."""
    moving = [f"{each['state']} {_called(each)}" for each in backend["models"] if each["state"] not in _AT_REST]
    failed = [f"cannot run {_called(each)}: {each['error']['code']}" for each in backend["models"] if each["error"]]
    if moving:
        return safe(", ".join(moving))
    if backend["reason"]:
        return f"[red]{safe(backend['reason'])}[/]"
    return f"[yellow]{safe('; '.join(failed))}[/]" if failed else ""


def _called(model: Facts) -> str:
    return str(model["name"] or model["cid"][:_SHORT_CID] + "…")


def _short(model: str) -> str:
    """A name as it is; a CID, which stands in for a name that is not known, cut short."""
    return safe(model) if len(model) <= 40 else safe(model[:_SHORT_CID]) + "…"

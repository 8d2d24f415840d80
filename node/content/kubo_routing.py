"""The DHT by way of an IPFS daemon: who provides a CID, and saying that the daemon does.

    routing/findprovs, routing/provide ─► an event a line: {"Type", "ID", "Responses": [{"ID", "Addrs"}], "Extra"}

Daemons before 0.14 have the same under `dht/`. An event of an error that names a peer is that peer's; one that names
nobody is of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio

from .cid import format_cid
from .kubo import Kubo
from .kubo_rpc import Options, UnknownCommandError, told

#: Types of events (go-libp2p, core/routing/query.go).
_ERROR: Final = 3
_PROVIDER: Final = 4
_MOST_PROVIDERS: Final = 20
_MOST_ADDRESSES: Final = 16
_LONGEST_ADDRESS: Final = 512
_LONGEST_ID: Final = 128
#: The DHT is asked for so long, and told for so long.
FIND_S: Final = 15.0
PROVIDE_S: Final = 60.0
#: Longer than the looking itself, so that what was found by then is kept.
_GRACE_S: Final = 5.0


@dataclass(frozen=True)
class Provider:
    """A peer that says it has a CID, and where it may be reached."""

    peer_id: str
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The providers that were found; `complete` unless the time was up before the DHT was asked through."""

    providers: list[Provider]
    complete: bool


async def find_providers(kubo: Kubo, cid: bytes) -> Found:
    """Up to 20 peers of IPFS that provide a CID, found within 15 seconds. Raises AccelError kubo-…."""
    found: dict[str, Provider] = {}
    failures: list[str] = []

    def hear(event: dict[str, Any]) -> bool:
        failures.extend(_failure(event))
        for provider in _providers(event):
            if provider.addresses or provider.peer_id not in found:
                found[provider.peer_id] = provider
        return len(found) < _MOST_PROVIDERS

    options = {"arg": format_cid(cid), "num-providers": str(_MOST_PROVIDERS)}
    with trio.move_on_after(FIND_S) as looking:
        await _listen(kubo, "findprovs", options, FIND_S + _GRACE_S, hear)
    if failures and not found:
        raise kubo.rpc.failed(f"findprovs: {failures[0]}")
    return Found(list(found.values())[:_MOST_PROVIDERS], not looking.cancelled_caught)


async def provide(kubo: Kubo, cid: bytes) -> None:
    """Has the daemon tell the DHT that it has a CID. Raises AccelError kubo-… unless that went well."""
    failures: list[str] = []

    def hear(event: dict[str, Any]) -> bool:
        failures.extend(_failure(event))
        return not failures

    await _listen(kubo, "provide", {"arg": format_cid(cid)}, PROVIDE_S, hear)
    if failures:
        raise kubo.rpc.failed(f"provide: {failures[0]}")


async def _listen(
    kubo: Kubo, command: str, options: Options, seconds: float, hear: Callable[[dict[str, Any]], bool]
) -> None:
    try:
        await kubo.rpc.listen(f"routing/{command}", options, seconds, hear)
    except UnknownCommandError:
        await kubo.rpc.listen(f"dht/{command}", options, seconds, hear)


def _failure(event: dict[str, Any]) -> list[str]:
    """What went wrong with the whole, if this event says so."""
    if event.get("Type") == _ERROR and not event.get("ID"):
        return [told(event.get("Extra")) or "it failed"]
    return []


def _providers(event: dict[str, Any]) -> list[Provider]:
    responses = event.get("Responses")
    if event.get("Type") != _PROVIDER or not isinstance(responses, list):
        return []
    return [
        Provider(each["ID"], _addresses(each.get("Addrs")))
        for each in responses
        if isinstance(each, dict) and _is_text(each.get("ID"), _LONGEST_ID)
    ]


def _addresses(listed: object) -> tuple[str, ...]:
    usable = [each for each in listed if _is_text(each, _LONGEST_ADDRESS)] if isinstance(listed, list) else []
    return tuple(usable[:_MOST_ADDRESSES])


def _is_text(value: object, longest: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= longest and value.isprintable()

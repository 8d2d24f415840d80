"""An advert: what a node says it can do, small enough for gossip, and only ever a hint.

The wire form is one msgpack array of short arrays; CIDs are binary; the position of a field is its name. Lists hold
what was used most recently first, so that what does not fit is left out from their end, and `more` says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack

from .errors import ProtocolError
from .framing import unpack
from .work import Work

VERSION: Final = 1
#: Bytes of an advert before it is sealed, so that it stays under 4 KiB on the topic.
MAX_SIZE: Final = 3900
TOPIC_PREFIX: Final = "ipfs-accel-node/adverts/1/"
STATES: Final = ("starting", "ready", "draining", "paused")
_MAX_TEXT: Final = 256
_MAX_CID: Final = 128


@dataclass(frozen=True, slots=True)
class Speed:
    """A measured speed: predicted seconds = fixed_s + units x per_unit_s + outputs x per_output_s.

    `unit` names what is counted ("bytes" of text); `spread` is the relative standard deviation over `count` runs;
    `per_output_s` is what each token takes that is written, 0 where nothing is written token by token.
    """

    fixed_s: float
    per_unit_s: float
    unit: str
    spread: float
    count: int
    per_output_s: float = 0.0

    def seconds(self, work: Work) -> float:
        return self.fixed_s + work.units * self.per_unit_s + work.outputs * self.per_output_s


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that the node holds; `size` in bytes; `task` is empty when it cannot be run."""

    cid: bytes
    name: str
    size: int
    task: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that the node can run on one of its backends. `speed` is None until it was measured."""

    cid: bytes
    backend: str
    task: str
    precision: str
    warm: bool
    load_s: float
    speed: Speed | None


@dataclass(frozen=True, slots=True)
class BackendState:
    """`state` is probing, ready, restarting or failed; `wait_s` predicts the wait of a job that comes now."""

    name: str
    device: str
    state: str
    queued: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Advert:
    """(incarnation, counter) only grow, so the newer of two adverts is known."""

    incarnation: int
    counter: int
    node_name: str
    state: str
    addresses: tuple[str, ...] = ()
    backends: tuple[BackendState, ...] = ()
    models: tuple[ModelInfo, ...] = ()
    offers: tuple[Offer, ...] = ()
    more: bool = False

    @property
    def age_key(self) -> tuple[int, int]:
        return self.incarnation, self.counter


def encode(advert: Advert, limit: int = MAX_SIZE) -> bytes:
    """The wire form in at most `limit` bytes: models, and with them their offers, are left out from the end."""
    while len(packed := _pack(advert)) > limit and (advert.models or advert.offers):
        kept = advert.models[: max(0, min(len(advert.models) - 1, len(advert.models) * limit // len(packed)))]
        cids = {model.cid for model in kept}
        offers = tuple(offer for offer in advert.offers if offer.cid in cids)
        advert = replace(advert, models=kept, offers=offers, more=True)
    return packed


def decode(data: bytes) -> Advert:
    """Raises ProtocolError for anything that is no advert of this version."""
    if len(data) > 1 << 20:
        raise ProtocolError("an advert is too large")
    fields = unpack(data)
    try:
        version, incarnation, counter, name, state, addresses, backends, models, offers, more = fields[:10]
        if version != VERSION:
            raise ProtocolError(f"adverts of version {version} are not known here", "version-mismatch")
        cids = tuple(_cid(model[0]) for model in models)
        return Advert(
            _number(incarnation),
            _number(counter),
            _text(name),
            _text(state),
            tuple(_text(address) for address in addresses),
            tuple(_backend(each) for each in backends),
            tuple(_model(each) for each in models),
            tuple(_offer(each, cids, backends) for each in offers),
            bool(more),
        )
    except ProtocolError:
        raise
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise ProtocolError(f"malformed advert ({type(error).__name__})") from None


def _pack(advert: Advert) -> bytes:
    model_places = {model.cid: place for place, model in enumerate(advert.models)}
    backend_places = {backend.name: place for place, backend in enumerate(advert.backends)}
    packed: bytes = msgpack.packb(
        [
            VERSION,
            advert.incarnation,
            advert.counter,
            advert.node_name,
            advert.state,
            list(advert.addresses),
            [[each.name, each.device, each.state, each.queued, _micro(each.wait_s)] for each in advert.backends],
            [[each.cid, each.name, each.size, each.task] for each in advert.models],
            [
                [
                    model_places[each.cid],
                    backend_places[each.backend],
                    each.task,
                    each.precision,
                    each.warm,
                    _micro(each.load_s),
                    _pack_speed(each.speed),
                ]
                for each in advert.offers
                if each.cid in model_places and each.backend in backend_places
            ],
            advert.more,
        ]
    )
    return packed


def _pack_speed(speed: Speed | None) -> list[Any] | None:
    """Fixed part in microseconds, the part a unit in picoseconds, the spread in thousandths.

    What an output takes, in microseconds, stands at the end, and only where there is any.
    """
    if speed is None:
        return None
    return [
        _micro(speed.fixed_s),
        max(0, round(speed.per_unit_s * 1e12)),
        speed.unit,
        round(speed.spread * 1e3),
        speed.count,
        *([_micro(speed.per_output_s)] if speed.per_output_s else []),
    ]


def _micro(seconds: float) -> int:
    return max(0, round(seconds * 1e6)) if math.isfinite(seconds) else (1 << 53)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ProtocolError("an advert has a number out of range")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > _MAX_TEXT:
        raise ProtocolError("an advert has a text that is none, or too long")
    return value


def _cid(value: Any) -> bytes:
    if type(value) is not bytes or not 4 <= len(value) <= _MAX_CID:
        raise ProtocolError("an advert has a CID that is none")
    return value


def _backend(fields: list[Any]) -> BackendState:
    name, device, state, queued, wait = fields[:5]
    return BackendState(_text(name), _text(device), _text(state), _number(queued), _number(wait) / 1e6)


def _model(fields: list[Any]) -> ModelInfo:
    cid, name, size, task = fields[:4]
    return ModelInfo(_cid(cid), _text(name), _number(size), _text(task))


def _offer(fields: list[Any], cids: tuple[bytes, ...], backends: list[list[Any]]) -> Offer:
    model, backend, task, precision, warm, load, speed = fields[:7]
    return Offer(
        cids[_number(model)],
        _text(backends[_number(backend)][0]),
        _text(task),
        _text(precision),
        bool(warm),
        _number(load) / 1e6,
        None if speed is None else _speed(speed),
    )


def _speed(fields: list[Any]) -> Speed:
    fixed, per_unit, unit, spread, count = fields[:5]
    per_output = fields[5] if len(fields) > 5 else 0
    return Speed(
        _number(fixed) / 1e6,
        _number(per_unit) / 1e12,
        _text(unit),
        _number(spread) / 1e3,
        _number(count),
        _number(per_output) / 1e6,
    )

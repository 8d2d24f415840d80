"""Adverts over GossipSub: sealed for the cluster, signed by the node they speak for."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import trio

from ...protocols import advert as adverts
from ...protocols.advert import Advert
from ...protocols.errors import ProtocolError
from ...protocols.sealing import cluster_id, open_sealed, peer_id_of, seal
from .host import Host
from .identity import Identity
from .pace import Pace

log = logging.getLogger(__name__)

_MAX_MESSAGE: Final = 8192
_READ_PAUSE_S: Final = 0.1
#: A message of any kind from a stream of the topic; adverts pass on their own.
_MAX_RPC: Final = 64 << 10
#: What one peer may say over gossip: bytes a second, and at once. A small message counts as much as `_LEAST`.
_RATE: Final = 64 << 10
_AT_ONCE: Final = 512 << 10
_LEAST: Final = 1 << 10
_LINK_GRACE_S: Final = 10.0
_LOOK_EVERY_S: Final = 0.1


class Gossip:
    """Publishes this node's adverts and hands on those of its peers."""

    def __init__(
        self, host: Host, identity: Identity, cluster_key: bytes, on_advert: Callable[[str, Advert], None]
    ) -> None:
        self._host = host
        self._identity = identity
        self._key = cluster_key
        self._on_advert = on_advert
        self._topic = adverts.TOPIC_PREFIX + cluster_id(cluster_key)
        self._pubsub: Any = None
        #: The newest advert of this node, sealed; a peer that has just linked is given it directly.
        self.latest = b""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from libp2p.tools.anyio_service import background_trio_service

            self._pubsub, router = _pubsub(self._host.libp2p)
            for protocol in router.get_protocols():
                self._host.libp2p.set_stream_handler(protocol, self._listen)
            self._pubsub._handle_new_peer_with_retry = partial(self._greet, self._pubsub._handle_new_peer_with_retry)
        async with background_trio_service(self._pubsub), background_trio_service(router):
            await self._pubsub.wait_until_ready()
            self._pubsub.set_topic_validator(self._topic, self._is_sound, False)
            subscription = await self._pubsub.subscribe(self._topic)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_all, subscription)
                yield
                nursery.cancel_scope.cancel()

    async def publish(self, advert: Advert) -> None:
        """Sends an advert to everyone; what does not reach a peer is made up for over its link."""
        body = adverts.encode(advert)
        self.latest = seal(body, cluster_key=self._key, signing_key=self._identity.seed)
        if self._pubsub is not None:
            try:
                with trio.move_on_after(2.0):
                    await self._pubsub.publish(self._topic, self.latest)
            except Exception as error:
                log.info("an advert was not published: %r", error)

    def take(self, data: bytes) -> str:
        """Takes a sealed advert however it came and gives the peer id it speaks for. Raises ProtocolError."""
        if len(data) > _MAX_MESSAGE:
            raise ProtocolError(f"an advert of {len(data)} bytes is over the limit of {_MAX_MESSAGE}")
        public_key, body = open_sealed(data, cluster_key=self._key)
        peer_id = peer_id_of(public_key)
        if peer_id != self._identity.peer_id:
            self._on_advert(peer_id, adverts.decode(body))
        return peer_id

    async def _greet(self, greet: Callable[..., Awaitable[None]], peer_id: Any, *rest: Any) -> None:
        """Speaks to members only: others would be told the topic, and be asked for GossipSub again and again."""
        while not self._host.is_member(str(peer_id)):
            if not self._host.is_connected(str(peer_id)):
                return
            await trio.sleep(_LOOK_EVERY_S)
        await greet(peer_id, *rest)

    async def _listen(self, stream: Any) -> None:
        """Hears members only, and no faster than anybody has anything to say."""
        peer_id = str(stream.muxed_conn.peer_id)
        with trio.move_on_after(_LINK_GRACE_S):
            while not self._host.is_member(peer_id):
                await trio.sleep(_LOOK_EVERY_S)
        if self._host.is_member(peer_id):
            await self._pubsub.stream_handler(_Paced(stream))
        else:
            await stream.reset()

    def _is_sound(self, _forwarder: Any, message: Any) -> bool:
        """Whether a message may be passed on: it is of a member, and of the one that the topic says."""
        if len(message.data) > _MAX_MESSAGE:
            return False
        try:
            public_key, _ = open_sealed(message.data, cluster_key=self._key)
        except ProtocolError:
            return False
        from libp2p.peer.id import ID

        return peer_id_of(public_key) == str(ID(message.from_id))

    async def _read_all(self, subscription: Any) -> None:
        while True:
            try:
                message = await subscription.get()
                self.take(message.data)
            except ProtocolError as error:
                log.info("an advert was dropped: %s", error)
            except Exception as error:
                log.warning("reading adverts: %r", error)
                await trio.sleep(_READ_PAUSE_S)


class _Paced:
    """A stream that is read at a bounded pace."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._pace = Pace(_RATE, _AT_ONCE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int | None = None) -> bytes:
        data: bytes = await self._stream.read(n)
        await self._pace.wait_for(0 if n == 1 else max(len(data), _LEAST))  # a message's length is read by the byte
        return data


def _pubsub(host: Any) -> tuple[Any, Any]:
    from libp2p.pubsub.gossipsub import PROTOCOL_ID, GossipSub
    from libp2p.pubsub.pubsub import Pubsub

    router = GossipSub(protocols=[PROTOCOL_ID], degree=6, degree_low=4, degree_high=12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    # It starts at whole seconds, so that whatever a restarted node says first is taken for old.
    pubsub.counter = time.time_ns()
    pubsub.max_inbound_rpc_size = _MAX_RPC
    return pubsub, router

"""The operations `model.publish`, `model.unpublish`, `model.providers` and `kubo` of the local door."""

from __future__ import annotations

from typing import Any

from ...protocols.errors import AccelError, ErrorCode
from ..exchanges import IncomingCall
from ..providers import ProviderFinder
from ..publishing import Publisher
from .local import Operation


class PublishingOperations:
    """Gives models to the IPFS daemon, takes them back, finds who has them, and tells how the daemon is."""

    def __init__(self, publisher: Publisher, finder: ProviderFinder) -> None:
        self._publisher = publisher
        self._finder = finder

    def by_name(self) -> dict[str, Operation]:
        return {
            "model.publish": self.publish,
            "model.unpublish": self.unpublish,
            "model.providers": self.providers,
            "kubo": self.kubo,
        }

    async def publish(self, call: IncomingCall) -> dict[str, Any]:
        model = _model(call)
        as_files = call.arguments.get("as_files") is True
        return await self._publisher.publish(model, as_files=as_files, on_progress=call.progress)

    async def unpublish(self, call: IncomingCall) -> dict[str, Any]:
        return await self._publisher.unpublish(_model(call))

    async def providers(self, call: IncomingCall) -> dict[str, Any]:
        return await self._finder.providers(_model(call))

    async def kubo(self, call: IncomingCall) -> dict[str, Any] | None:  # noqa: ARG002
        return await self._publisher.describe()


def _model(call: IncomingCall) -> str:
    model = call.arguments.get("model") if isinstance(call.arguments, dict) else None
    if not isinstance(model, str) or not model:
        raise AccelError(ErrorCode.BAD_INPUT, f"{call.method} needs 'model'")
    return model

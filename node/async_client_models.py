"""What an asynchronous client does with the models of a node; arguments and errors are those of `ClientModels`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from .client_models import get_arguments, import_arguments, pin_arguments, publish_arguments, unpin_arguments
from .client_requests import OnProgress
from .config import absolute

if TYPE_CHECKING:
    from .model_source import ModelSource


@asynccontextmanager
async def _opened(opening: AbstractContextManager[ModelSource]) -> AsyncIterator[ModelSource]:
    """What takes long is done in a thread; what a mistake or a cancellation leaves is removed at once."""
    found = await anyio.to_thread.run_sync(opening.__enter__)
    try:
        yield found
    except BaseException as error:
        opening.__exit__(type(error), error, error.__traceback__)
        raise
    await anyio.to_thread.run_sync(opening.__exit__, None, None, None)


class AsyncClientModels:
    """The part of `AsyncClient` that is about models."""

    async def models(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(await self._ask("model.ls", timeout))

    async def model_info(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(await self._ask("model.info", timeout, model=model))

    async def add_model(
        self,
        source: Path | str,
        name: str | None = None,
        *,
        anyway: bool = False,
        convert: bool = False,
        license_name: str = "",
        gated: bool = False,
        cid_profile: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """A folder, or `hf:owner/name[@revision]`; the rest as for `Client`."""
        from .model_source import needs_room, opened_source

        report = on_progress or (lambda *_: None)
        data_dir = (await self.status())["data_dir"] if needs_room(source, convert=convert) else ""
        downloads = Path(data_dir) / "downloads"
        async with _opened(opened_source(source, downloads, name, convert=convert, on_progress=report)) as found:
            given = found.with_notes(license_name, gated=gated).as_arguments(cid_profile)
            return dict(await self._operate("model.add", on_progress, anyway=anyway, **given))

    async def make_model(
        self,
        family: str,
        name: str | None = None,
        *,
        size: str = "tiny",
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """One with random weights, made on this machine; as for `Client`."""
        from .model_source import made_source

        report = on_progress or (lambda *_: None)
        downloads = Path((await self.status())["data_dir"]) / "downloads"
        async with _opened(made_source(family, size, seed, downloads, name, report)) as found:
            return dict(await self._operate("model.add", on_progress, **found.as_arguments()))

    async def get_model(
        self,
        model: str,
        name: str | None = None,
        *,
        ipfs_peers: Sequence[str] = (),
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        return dict(await self._operate("model.get", on_progress, **get_arguments(model, name, ipfs_peers)))

    async def import_model(
        self,
        path: Path | str,
        name: str | None = None,
        *,
        root: str | None = None,
        license_name: str = "",
        gated: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """As for `Client`."""
        told = import_arguments(path, name, root, license_name, gated)
        return dict(await self._operate("model.import", on_progress, **told))

    async def export_model(
        self, model: str, path: Path | str, *, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """As for `Client`."""
        return dict(await self._operate("model.export", on_progress, model=model, path=str(absolute(path))))

    async def publish_model(
        self, model: str, *, as_files: bool = False, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """As for `Client`."""
        return dict(await self._operate("model.publish", on_progress, **publish_arguments(model, as_files=as_files)))

    async def providers(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        """As for `Client`."""
        return dict(await self._ask("model.providers", timeout, model=model))

    async def unpublish_model(self, model: str) -> dict[str, Any]:
        return dict(await self._operate("model.unpublish", model=model))

    async def kubo(self, *, timeout: float | None = None) -> dict[str, Any] | None:
        facts = await self._ask("kubo", timeout)
        return None if facts is None else dict(facts)

    async def remove_model(self, model: str) -> dict[str, Any]:
        return dict(await self._operate("model.rm", model=model))

    async def pins(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(await self._ask("pin.ls", timeout))

    async def pin_model(
        self,
        model: str,
        *,
        cluster: bool = False,
        replicas: tuple[int, int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """As for `Client`."""
        told = pin_arguments(model, cluster=cluster, replicas=replicas)
        return dict(await self._operate("pin.add", on_progress, **told))

    async def unpin_model(self, model: str, *, cluster: bool = False) -> dict[str, Any]:
        """Lets a model be removed again; with `cluster` it is the cluster's pin that ends, everywhere."""
        return dict(await self._operate("pin.rm", **unpin_arguments(model, cluster=cluster)))

    async def repo_stat(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Bytes by what takes them: models, pinned, partial, derived; the limit; what is free on the disk."""
        return dict(await self._ask("repo.stat", timeout))

    async def repo_gc(self, *, unpinned: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Removes what nothing needs and, with `unpinned`, every model that is neither pinned nor in use."""
        return dict(await self._operate("repo.gc", unpinned=unpinned, dry_run=dry_run))

    async def repo_verify(
        self, model: str | None = None, *, repair: bool = False, on_progress: OnProgress | None = None
    ) -> list[dict[str, Any]]:
        """Reads a model, or all, again; `damaged` files of each. `repair` fetches those from peers."""
        return list(await self._operate("repo.verify", on_progress, model=model, repair=repair))

    async def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        raise NotImplementedError

    async def _ask(self, method: str, timeout: float | None, /, **arguments: Any) -> Any:
        raise NotImplementedError

    async def _operate(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        raise NotImplementedError

"""Where a model that is to be added comes from: a folder, a hub, or made here with random weights.

What has its weights as pickles is converted first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..protocols.errors import AccelError, ErrorCode
from .config import absolute
from .content.store import Origin
from .hub import downloaded, is_reference, parse_reference

OnProgress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class ModelSource:
    """A folder to add. With `take` it is nobody else's, and the store may move it instead of copying it."""

    path: Path
    name: str | None = None
    origin: Origin = Origin()
    take: bool = False

    def with_notes(self, license_name: str, *, gated: bool) -> ModelSource:
        """What whoever adds it says of it counts, except that a gated model is never called open."""
        found = self.origin
        return replace(self, origin=Origin(found.origin, license_name or found.license, gated or found.gated))

    def as_arguments(self, cid_profile: str | None = None) -> dict[str, Any]:
        """For the operation `model.add`."""
        told = {"take": self.take, "cid_profile": cid_profile, **self.origin._asdict()}
        return {"path": str(self.path), "name": self.name, **{key: value for key, value in told.items() if value}}


def needs_room(source: Path | str, *, convert: bool) -> bool:
    """Whether something is fetched or made before it is added."""
    return convert or is_reference(str(source))


@contextmanager
def opened_source(
    source: Path | str, downloads: Path, name: str | None, *, convert: bool, on_progress: OnProgress
) -> Iterator[ModelSource]:
    """The folder to add, for as long as the block lasts.

    Args:
        downloads: where to put what is made or fetched, where `needs_room`; best on the store's own disk.

    Raises:
        AccelError: bad-input, and what `hub.downloaded` and a conversion raise.
    """
    with ExitStack() as stack:
        if is_reference(str(source)):
            found = _from_hub(stack, str(source), downloads, name, convert, on_progress)
        else:
            found = ModelSource(absolute(source), name)
        yield _converted(stack, found, downloads, on_progress) if convert and _has_pickles(found.path) else found


@contextmanager
def made_source(
    family: str, size: str, seed: int, downloads: Path, name: str | None, on_progress: OnProgress
) -> Iterator[ModelSource]:
    """A model with random weights, made under `downloads`, for as long as the block lasts.

    Raises:
        AccelError: what `backends.making_apart` raises.
    """
    _check_here(downloads, "model make")
    target = downloads / f"made-{uuid4().hex[:8]}" / family
    try:
        write_made(target, family, size, seed, on_progress)
        origin = Origin(f"random weights, made here: {family}, {size}, seed {seed}")
        yield ModelSource(target, name or f"{family}-{size}-random", origin, take=True)
    finally:
        shutil.rmtree(target.parent, ignore_errors=True)


def write_made(folder: Path, family: str, size: str, seed: int, on_progress: OnProgress) -> None:
    """Makes the folder, which must not be there yet. Raises AccelError as `made_source`."""
    from ..backends.interface import BackendError
    from ..backends.making_apart import make_apart

    try:
        make_apart(folder, family, size, seed, lambda state, done, total: on_progress(state, done, total, ""))
    except BackendError as error:
        raise AccelError(error.code, error.message, error.hint) from None


def _check_here(downloads: Path, command: str) -> None:
    if not downloads.parent.is_dir():
        raise AccelError(ErrorCode.BAD_INPUT, "the node is on another machine", f"Run `{command}` there.")


def _from_hub(
    stack: ExitStack, source: str, downloads: Path, name: str | None, convert: bool, on_progress: OnProgress
) -> ModelSource:
    reference = parse_reference(source)
    _check_here(downloads, "model add hf:…")
    folder = downloads / reference.repository.replace("/", "--")
    got = stack.enter_context(downloaded(reference, folder, on_progress, pickles=convert))
    return ModelSource(got.folder, name or reference.name, Origin(got.origin, got.license, got.gated), take=True)


def _has_pickles(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.glob("*.safetensors"))


def _converted(stack: ExitStack, found: ModelSource, downloads: Path, on_progress: OnProgress) -> ModelSource:
    """A folder of its own with safetensors, whose origin says what they were."""
    from ..backends.interface import BackendError
    from ..backends.unpickling import convert_pickles

    target = downloads / f"converted-{uuid4().hex[:8]}" / found.path.name
    target.parent.mkdir(parents=True)
    stack.callback(shutil.rmtree, target.parent, ignore_errors=True)
    try:
        digest = convert_pickles(found.path, target, lambda state, done, total: on_progress(state, done, total, ""))
    except BackendError as error:
        raise AccelError(error.code, error.message, error.hint) from None
    told = f"{found.origin.origin or found.path.name} converted from pickle sha256:{digest}"
    return replace(found, path=target, origin=found.origin._replace(origin=told), take=True)

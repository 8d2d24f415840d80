"""Where things lie in a store, what is kept beside a model, and how what was left half done is put right."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from ...protocols.errors import AccelError
from .cid import format_cid, parse_cid
from .contents import Contents
from .disk import write_whole
from .importer import import_folder
from .profiles import possible_profiles

log = logging.getLogger(__name__)

_CONTENTS: Final = ".contents"
_LABEL: Final = ".json"
#: A fetch that nobody took up again for so long is given up.
_PARTIAL_KEPT_S: Final = 14 * 86_400.0


class Origin(NamedTuple):
    """Where a model came from, as in `Label`."""

    origin: str = ""
    license: str = ""
    gated: bool = False


@dataclass(frozen=True)
class Label:
    """What may change about a model; times in seconds since 1970. A pinned model is not removed.

    `pinned` is this node's own pin, `shared` the cluster's, which this node was chosen to hold.

    `origin` says where it came from, like `hf:owner/name@revision`; `license` is as its publisher names it. A `gated`
    model was given to this node's owner alone, and never leaves the cluster. What is not known is empty.
    """

    name: str
    added_at: float
    last_used: float
    pinned: bool = False
    origin: str = ""
    license: str = ""
    gated: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Layout:
    """The folders of one store; see `store` for what each is for."""

    root: Path

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def manifests(self) -> Path:
        return self.root / "manifests"

    @property
    def partials(self) -> Path:
        return self.root / "partial"

    @property
    def adding(self) -> Path:
        return self.root / "adding"

    def model(self, cid: bytes) -> Path:
        return self.models / format_cid(cid)

    def partial(self, cid: bytes) -> Path:
        return self.partials / format_cid(cid)

    def contents(self, cid: bytes) -> Path:
        return self.manifests / f"{format_cid(cid)}{_CONTENTS}"

    def label(self, cid: bytes) -> Path:
        return self.manifests / f"{format_cid(cid)}{_LABEL}"

    def scratch(self) -> Path:
        """A path of its own for something unfinished; it is cleared at the next opening."""
        return self.adding / uuid4().hex

    def clear(self) -> None:
        """Makes the folders, and removes what no process will finish: half an addition, a fetch given up long ago."""
        shutil.rmtree(self.adding, ignore_errors=True)
        for folder in (self.models, self.manifests, self.partials, self.adding):
            folder.mkdir(parents=True, exist_ok=True)
        for partial in self.partials.iterdir():
            if time.time() - partial.stat().st_mtime > _PARTIAL_KEPT_S:
                shutil.rmtree(partial, ignore_errors=True)
        for file in self.manifests.iterdir():
            if file.suffix not in (_CONTENTS, _LABEL) or not (self.models / file.stem).is_dir():
                file.unlink(missing_ok=True)

    def stored(self) -> Iterator[bytes]:
        """The CIDs that have a folder, whole or not."""
        for folder in sorted(self.models.iterdir()):
            try:
                yield parse_cid(folder.name)
            except AccelError:
                log.warning("%s is no model of this store; it is left alone", folder)

    def read_contents(self, cid: bytes) -> Contents | None:
        """What the model is made of; None when that is not known, or its folder is not whole."""
        try:
            contents = Contents.unpack(self.contents(cid).read_bytes())
        except (AccelError, OSError) as error:
            log.warning("%s: %s", self.contents(cid), error)
            return None
        return contents if contents.root == cid and contents.is_whole(self.model(cid)) else None

    def recover(self, cid: bytes) -> Contents | None:
        """Makes a model's contents again out of its files; one that is not whole is put back to be fetched.

        Nothing that a fetch could keep is thrown away here.
        """
        folder = self.model(cid)
        log.warning("%s has lost its list of blocks, or files: it is read again", folder)
        try:
            for profile in possible_profiles(cid):
                contents = import_folder(folder, profile)
                if contents.root == cid:
                    write_whole(self.contents(cid), contents.pack())
                    return contents
        except (AccelError, OSError) as error:
            log.warning("%s: %s", folder, error)
        log.error("%s is not whole; `ipfs-accel-node model get %s` fetches what it lacks", folder, folder.name)
        shutil.rmtree(self.partial(cid), ignore_errors=True)
        os.rename(folder, self.partial(cid))
        os.utime(self.partial(cid))
        return None

    def read_label(self, cid: bytes) -> Label:
        """A label that cannot be read is replaced by one without a name."""
        try:
            fields = json.loads(self.label(cid).read_bytes())
            return Label(
                str(fields["name"]),
                float(fields["added_at"]),
                float(fields["last_used"]),
                pinned=fields.get("pinned") is True,
                origin=str(fields.get("origin", "")),
                license=str(fields.get("license", "")),
                gated=fields.get("gated") is True,
                shared=fields.get("shared") is True,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s: %s", self.label(cid), error)
            added_at = self.model(cid).stat().st_mtime
            return Label("", added_at, added_at)

    def write_label(self, cid: bytes, label: Label, *, synced: bool = True) -> None:
        write_whole(self.label(cid), json.dumps(asdict(label)).encode(), synced=synced)

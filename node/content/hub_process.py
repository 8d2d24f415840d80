"""The process that downloads from a hub: one repository's files into a folder, each checked, told in JSON lines.

    python -m ipfs_accel_node.node.content.hub_process FOLDER REPOSITORY [--revision R] [--pickles] [--space BYTES]

It is apart from whoever wants the model, who can kill it at any time: what is whole stays in the folder, and the next
download goes on from there. `huggingface_hub` does the talking; it reads HF_ENDPOINT and HF_TOKEN, or the token that
`hf auth login` left, and gives it to the hub alone.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NoReturn

from .hub_files import chosen, has_pickles, has_weights

_TIMEOUT_S: Final = 20.0
_MAX_FILES: Final = 2000
_PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
_PIECE: Final = 1 << 20


class _RefusedError(Exception):
    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.told = {"code": code, "message": message, "hint": hint}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("repository")
    parser.add_argument("--revision")
    parser.add_argument("--pickles", action="store_true")
    parser.add_argument("--space", type=int, default=1 << 62)
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _say(done=_download(options))
    except _RefusedError as error:
        _say(error=error.told)
    except Exception as error:
        _say(error=_told(error, options.repository, options.revision))


def _end_with_parent() -> None:
    """Nobody writes to standard input: that it ends means that whoever asked for this is gone."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _download(options: argparse.Namespace) -> dict[str, Any]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(options.repository, revision=options.revision, files_metadata=True, timeout=_TIMEOUT_S)
    files = _files(info, options)
    total = sum(file.size or 0 for file in files)
    _check_space(options, files, total)
    described = _described(info)
    # In a folder of the commit: another revision's files must not be taken for this one's.
    folder = options.folder / str(info.sha)
    _say(files=[file.rfilename for file in files], total=total, folder=str(folder), **described)
    for file in files:
        _check(_fetched(options.repository, file.rfilename, str(info.sha), folder), file)
    return {"folder": str(folder), "total": total, **described}


def _fetched(repository: str, name: str, commit: str, folder: Path) -> Path:
    """A connection that breaks is made again a few times; each goes on where the last one ended."""
    from huggingface_hub import hf_hub_download

    for pause in (*_PAUSES_S, None):
        try:
            return Path(hf_hub_download(repository, name, revision=commit, local_dir=folder, etag_timeout=_TIMEOUT_S))
        except OSError as error:  # requests' errors are; those with an answer are the hub's own word
            if pause is None or getattr(error, "response", None) is not None or error.errno == errno.ENOSPC:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _files(info: Any, options: argparse.Namespace) -> list[Any]:
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    names = chosen(siblings, pickles=options.pickles)
    if not has_weights(names):
        _refuse_without_weights(list(siblings), options)
    if len(names) > _MAX_FILES:
        raise _RefusedError("too-large", f"{options.repository} has {len(names)} files", f"At most {_MAX_FILES}.")
    return [siblings[name] for name in names]


def _refuse_without_weights(names: list[str], options: argparse.Namespace) -> NoReturn:
    if has_pickles(names):
        raise _RefusedError(
            "unsafe-model",
            f"{options.repository} is published as pickles only, which can run code",
            "Have it converted in a process apart: model add … --convert",
        )
    what = "only GGUF files" if any(name.endswith(".gguf") for name in names) else "no safetensors"
    raise _RefusedError("not-a-model", f"{options.repository} has {what}", "Choose a repository with safetensors.")


def _check_space(options: argparse.Namespace, files: list[Any], total: int) -> None:
    there = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    if total - there > options.space:
        needed = f"{-(-total >> 20)} MiB in {len(files)} files"
        raise _RefusedError(
            "disk-full",
            f"{options.repository} takes {needed}, and {options.space >> 20} MiB are free",
            "Remove a model (`ipfs-accel-node model rm`), or move the data folder.",
        )


def _described(info: Any) -> dict[str, Any]:
    card = info.card_data.to_dict() if info.card_data else {}
    license_name = card.get("license_name") or card.get("license") or ""
    return {
        "commit": str(info.sha),
        "repository": str(info.id),
        "license": license_name if isinstance(license_name, str) else " ".join(map(str, license_name)),
        "gated": bool(info.gated),
    }


def _check(path: Path, file: Any) -> None:
    """The file is what the hub's list says: SHA-256 for large files, git's blob id (SHA-1) for small ones."""
    size = path.stat().st_size
    if file.lfs is not None:
        sound = _digest(path, hashlib.sha256()) == file.lfs.sha256
    elif file.blob_id:
        blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
        sound = _digest(path, blob) == file.blob_id
    else:
        sound = file.size in (None, size)
    if not sound:
        path.unlink()
        raise _RefusedError(
            "corrupt-content",
            f"{file.rfilename} is not what the hub says it is",
            "Try again; if that does not help, the hub or something before it is broken.",
        )


def _digest(path: Path, digest: Any) -> str:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return str(digest.hexdigest())


def _told(error: Exception, repository: str, revision: str | None) -> dict[str, str]:
    """What went wrong at the hub, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # what huggingface_hub calls a hub that does not answer
        return _told_of_the_network(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    page = f"https://huggingface.co/{repository}"
    by_kind = (
        (errors.GatedRepoError, "gated-model", f"{repository} is gated: its publisher lets in whom they choose",
         f"Accept the terms at {page}, then set HF_TOKEN to a token of your account."),
        (errors.DisabledRepoError, "content-not-found", f"{repository} was disabled by the hub", ""),
        (errors.RevisionNotFoundError, "unknown-model", f"{repository} has no revision {revision!r}",
         "Give a branch, a tag or a commit, or leave it out."),
        (errors.RepositoryNotFoundError, "unknown-model", f"the hub has no {repository}, or not for you",
         "Check the spelling. For a private one set HF_TOKEN to a token that may read it."),
        (errors.EntryNotFoundError, "content-not-found", f"a file of {repository} went away while it was fetched", ""),
        (errors.HFValidationError, "bad-input", f"{repository!r} is no repository's name", "Like hf:owner/name."),
        (errors.OfflineModeIsEnabled, "network-unreachable", "HF_HUB_OFFLINE is set", "Unset it to use the hub."),
    )  # fmt: skip
    for kind, code, message, hint in by_kind:
        if isinstance(error, kind):
            return {"code": code, "message": message, "hint": hint}
    return _told_of_the_network(error)


def _told_of_the_network(error: Exception) -> dict[str, str]:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 429:
        wait = str(response.headers.get("Retry-After", "")) if response is not None else ""
        when = f" in {wait} s" if wait.isdecimal() else " later"
        return {"code": "busy", "message": "the hub takes no more requests from here now", "hint": f"Try again{when}."}
    if status in (401, 403):
        return {
            "code": "permission-denied",
            "message": f"the hub refuses the token (HTTP {status})",
            "hint": "Make a new one in your account's settings, or unset HF_TOKEN for what is public.",
        }
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return {"code": "disk-full", "message": f"the disk is full: {error}", "hint": "Make room and try again."}
    if status is not None or isinstance(error, (OSError, TimeoutError)):
        return {
            "code": "network-unreachable",
            "message": f"the hub cannot be reached: {type(error).__name__}: {error}"[:300],
            "hint": "Check the network and HF_ENDPOINT; what came is kept, so another try goes on from there.",
        }
    return {"code": "internal", "message": f"{type(error).__name__}: {error}"[:300], "hint": ""}


if __name__ == "__main__":
    main()

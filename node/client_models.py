"""What a client does with the models of a node: adding, fetching, pinning, and looking after what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .client_requests import OnProgress
from .config import absolute


def get_arguments(model: str, name: str | None, ipfs_peers: Sequence[str]) -> dict[str, Any]:
    return {"model": model, "name": name} | ({"from": list(ipfs_peers)} if ipfs_peers else {})


def publish_arguments(model: str, *, as_files: bool) -> dict[str, Any]:
    return {"model": model} | ({"as_files": True} if as_files else {})


def import_arguments(
    path: Path | str, name: str | None, root: str | None, license_name: str, gated: bool
) -> dict[str, Any]:
    told = {"path": str(absolute(path)), "name": name, "root": root, "gated": gated}
    return told | ({"license": license_name} if license_name else {})


def pin_arguments(model: str, *, cluster: bool, replicas: tuple[int, int] | None) -> dict[str, Any]:
    """What an older node does not know is said only where it is meant."""
    minimum, maximum = replicas or (None, None)
    return {"model": model} | ({"cluster": True, "minimum": minimum, "maximum": maximum} if cluster else {})


def unpin_arguments(model: str, *, cluster: bool) -> dict[str, Any]:
    return {"model": model} | ({"cluster": True} if cluster else {})


class ClientModels:
    """The part of `Client` that is about models."""

    def models(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        return list(self._ask("model.ls", timeout))

    def model_info(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        return dict(self._ask("model.info", timeout, model=model))

    def add_model(
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
        """Adds a model to the node's store; `cid` of the answer names it everywhere.

        Args:
            source: a Hugging Face folder, or `hf:owner/name[@revision]`, which this process downloads.
            anyway: also what could not be run.
            convert: read weights that are pickles in a limited process, and write safetensors.
            license_name, gated: what is noted of it; a gated model never leaves the cluster.
            cid_profile: how its CID is made, such as `unixfs-v0-2015`; else as the node's configuration says.

        Raises:
            AccelError: not-a-model, unsafe-model, gated-model, network-unreachable, disk-full, ….
        """
        from .model_source import needs_room, opened_source

        report = on_progress or (lambda *_: None)
        downloads = Path(self.status()["data_dir"] if needs_room(source, convert=convert) else "") / "downloads"
        with opened_source(source, downloads, name, convert=convert, on_progress=report) as found:
            given = found.with_notes(license_name, gated=gated)
            return dict(self._operate("model.add", on_progress, anyway=anyway, **given.as_arguments(cid_profile)))

    def make_model(
        self,
        family: str,
        name: str | None = None,
        *,
        size: str = "tiny",
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Makes a model with random weights on this machine, and adds it; its results say `weights: random`.

        Args:
            family: bert, sentence, clip, llama, opt, gpt2, t5, whisper, wav2vec2, clap, videomae, xclip,
                llava or llava_next.
            size: `tiny`, or `reference`: shaped as a published checkpoint of the family.

        Raises:
            AccelError: bad-input, backend-missing without torch, disk-full, out-of-memory, deadline-exceeded.
        """
        from .model_source import made_source

        report = on_progress or (lambda *_: None)
        downloads = Path(self.status()["data_dir"]) / "downloads"
        with made_source(family, size, seed, downloads, name, report) as found:
            return dict(self._operate("model.add", on_progress, **found.as_arguments()))

    def get_model(
        self,
        model: str,
        name: str | None = None,
        *,
        ipfs_peers: Sequence[str] = (),
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Fetches a model from the peers that have it, and from the IPFS peers at the addresses `ipfs_peers`.

        Raises:
            AccelError: content-not-found with what became of each peer, corrupt-content, not-a-model, disk-full, ….
        """
        return dict(self._operate("model.get", on_progress, **get_arguments(model, name, ipfs_peers)))

    def import_model(
        self,
        path: Path | str,
        name: str | None = None,
        *,
        root: str | None = None,
        license_name: str = "",
        gated: bool = False,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Takes a model out of a CAR file on the node's machine, every block checked.

        Args:
            root: the CID of the model, where the file names several.

        Raises:
            AccelError: bad-input, corrupt-content, content-not-found where blocks are lacking, disk-full, ….
        """
        told = import_arguments(path, name, root, license_name, gated)
        return dict(self._operate("model.import", on_progress, **told))

    def export_model(self, model: str, path: Path | str, *, on_progress: OnProgress | None = None) -> dict[str, Any]:
        """Writes a model of this node into a new CAR file on its machine, which IPFS programs read."""
        return dict(self._operate("model.export", on_progress, model=model, path=str(absolute(path))))

    def publish_model(
        self, model: str, *, as_files: bool = False, on_progress: OnProgress | None = None
    ) -> dict[str, Any]:
        """Gives a model to the node's IPFS daemon, pins it there and has it provided in the DHT.

        A provide that fails is told as `provide_error`; the model is `published` all the same.

        Args:
            as_files: for a daemon that has no dag/import.

        Raises:
            AccelError: may-not-leave, busy while another one is published, kubo-….
        """
        return dict(self._operate("model.publish", on_progress, **publish_arguments(model, as_files=as_files)))

    def providers(self, model: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Who has a model: `nodes` of the cluster, and `ipfs`, what the node's IPFS daemon finds in the DHT.

        `ipfs` is None without a daemon and for a gated model, which the DHT is never asked for; else it has `peers`
        (at most 20, each with peer_id and addresses), `complete` unless 15 seconds were up, and `error`.
        """
        return dict(self._ask("model.providers", timeout, model=model))

    def unpublish_model(self, model: str) -> dict[str, Any]:
        """Unpins at the daemon what this node published."""
        return dict(self._operate("model.unpublish", model=model))

    def kubo(self, *, timeout: float | None = None) -> dict[str, Any] | None:
        """The node's IPFS daemon: address, version, peer_id, error; None when it has none."""
        facts = self._ask("kubo", timeout)
        return None if facts is None else dict(facts)

    def remove_model(self, model: str) -> dict[str, Any]:
        return dict(self._operate("model.rm", model=model))

    def pins(self, *, timeout: float | None = None) -> list[dict[str, Any]]:
        """The models that are pinned on this node or by the cluster, with who is to hold those and who does."""
        return list(self._ask("pin.ls", timeout))

    def pin_model(
        self,
        model: str,
        *,
        cluster: bool = False,
        replicas: tuple[int, int] | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Keeps a model on this node: it is not removed until it is unpinned. Fetched first when it is not here.

        Args:
            cluster: the nodes of the cluster keep it among them instead.
            replicas: how many of them at least and at most; all when not given.
        """
        told = pin_arguments(model, cluster=cluster, replicas=replicas)
        return dict(self._operate("pin.add", on_progress, **told))

    def unpin_model(self, model: str, *, cluster: bool = False) -> dict[str, Any]:
        """Lets a model be removed again; with `cluster` it is the cluster's pin that ends, everywhere."""
        return dict(self._operate("pin.rm", **unpin_arguments(model, cluster=cluster)))

    def repo_stat(self, *, timeout: float | None = None) -> dict[str, Any]:
        """Bytes by what takes them: models, pinned, partial, derived; the limit; what is free on the disk."""
        return dict(self._ask("repo.stat", timeout))

    def repo_gc(self, *, unpinned: bool = False, dry_run: bool = False) -> dict[str, Any]:
        """Removes what nothing needs and, with `unpinned`, every model that is neither pinned nor in use."""
        return dict(self._operate("repo.gc", unpinned=unpinned, dry_run=dry_run))

    def repo_verify(
        self, model: str | None = None, *, repair: bool = False, on_progress: OnProgress | None = None
    ) -> list[dict[str, Any]]:
        """Reads a model, or all, again; `damaged` files of each. `repair` fetches those from peers."""
        return list(self._operate("repo.verify", on_progress, model=model, repair=repair))

    def status(self, *, timeout: float | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def _ask(self, method: str, timeout: float | None, /, **arguments: Any) -> Any:
        raise NotImplementedError

    def _operate(self, method: str, on_progress: OnProgress | None = None, /, **arguments: Any) -> Any:
        raise NotImplementedError

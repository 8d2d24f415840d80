"""What other programs have on this disk: found as they lay it out, and bounded whatever lies there."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from cluster import make_echo_model
from ipfs_accel_node.node import config, finding
from ipfs_accel_node.node.finding import Cache, find_models

COMMIT = "c" * 40


def put_in_hub(cache: Path, repository: str, files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """A snapshot as huggingface_hub lays it out: links to blobs."""
    top = cache / f"models--{repository.replace('/', '--')}"
    snapshot = top / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (top / "blobs").mkdir(exist_ok=True)
    for place, (name, content) in enumerate(files.items()):
        (top / "blobs" / f"{commit[:4]}{place}").write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{commit[:4]}{place}")
    return snapshot


def config_of(model_type: str, **more: object) -> bytes:
    return json.dumps({"model_type": model_type, **more}).encode()


def found_in(path: Path, name: str = "", kind: str = "huggingface", **options):
    return find_models([Cache(kind, path)], name, **options)


@pytest.fixture
def one(tmp_path):
    """Finds in `tmp_path`, where there is one model."""

    def look():
        (model,) = found_in(tmp_path).models
        return model

    return look


def test_models_of_the_hub_are_found_by_their_names(tmp_path):
    snapshot = put_in_hub(tmp_path, "Org/Echo-Model", {"config.json": config_of("echo"), "a.txt": b"abc"})
    put_in_hub(tmp_path, "other/thing", {"config.json": config_of("echo")})
    (tmp_path / "datasets--org--data").mkdir()
    (tmp_path / "version.txt").write_text("1")
    everything = found_in(tmp_path)
    assert sorted(model.name for model in everything.models) == ["Org/Echo-Model", "other/thing"]
    (model,) = found_in(tmp_path, "echo").models
    assert (model.path, model.revision, model.size, model.task) == (str(snapshot), COMMIT, 25, "echo")
    assert (model.can_add, model.convert, model.why_not) == (True, False, "")
    assert everything.complete
    assert everything.caches == [{"kind": "huggingface", "path": str(tmp_path), "state": "searched"}]


def test_each_revision_is_a_model(tmp_path):
    for commit in ("a" * 40, "b" * 40):
        put_in_hub(tmp_path, "org/name", {"config.json": config_of("echo"), "commit": commit.encode()}, commit)
    assert [model.revision for model in found_in(tmp_path).models] == ["a" * 40, "b" * 40]


def test_plain_folders_of_sentence_transformers_and_bare_files_of_torch(tmp_path):
    make_echo_model(tmp_path / "sentences" / "sentence-transformers_tiny_one")
    (tmp_path / "sentences" / "no-model").mkdir()
    (model,) = found_in(tmp_path / "sentences", kind="sentence-transformers").models
    assert (model.name, model.can_add) == ("sentence-transformers/tiny_one", True)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "resnet18-f37072fd.pth").write_bytes(b"12345")
    (tmp_path / "torch" / "notes.txt").write_text("")
    (model,) = found_in(tmp_path / "torch", kind="torch").models
    assert (model.name, model.size, model.can_add) == ("resnet18-f37072fd.pth", 5, False)
    assert "alone" in model.why_not


@pytest.mark.parametrize(
    ("files", "can_add", "convert", "why"),
    [
        ({"config.json": config_of("bert"), "pytorch_model.bin": b"x"}, True, True, "pickles"),
        ({"config.json": config_of("bert", auto_map={}), "pytorch_model.bin": b"x"}, False, False, "code of its own"),
        ({"config.json": config_of("bert"), "weights.bin": b"x"}, False, False, "pickles"),
        ({"config.json": config_of("resnet")}, True, False, "not served"),
        ({"config.json": config_of("bert")}, False, False, "no model.safetensors"),
        ({"config.json": config_of("bert"), "model.safetensors": b"x"}, False, False, "cannot be read"),
        ({"config.json": b"{" * 100_000}, False, False, "cannot be read"),
        ({"tokenizer.json": b"{}"}, False, False, "no config.json"),
    ],
)
def test_what_cannot_be_added_says_why(tmp_path, one, files, can_add, convert, why):
    put_in_hub(tmp_path, "org/name", files)
    model = one()
    assert (model.can_add, model.convert, model.task) == (can_add, convert, "")
    assert why in model.why_not


def test_links_go_no_further_than_the_models_own_blobs(tmp_path, one):
    cache, secret = tmp_path, tmp_path / "secret"
    secret.write_text("secret")
    snapshot = put_in_hub(cache, "org/name", {"config.json": config_of("echo")})
    (snapshot / "out.txt").symlink_to(secret)
    assert (one().can_add, "leads out" in one().why_not) == (False, True)
    (snapshot / "out.txt").unlink()
    (snapshot / "round").symlink_to("round")
    assert one().can_add is False
    (snapshot / "round").unlink()
    (snapshot / "up").symlink_to("..")
    assert one().can_add is False
    (snapshot / "up").unlink()
    (snapshot.parent / ("d" * 40)).symlink_to("/")  # a snapshot that is a link is none
    assert one().can_add is True


def test_loops_pipes_and_what_may_not_be_read(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "models--a--loop").symlink_to("models--a--loop")
    (cache / "models--a--up").symlink_to(cache)
    (cache / "models--a--file").write_text("")
    (cache / "models--a--empty").mkdir()
    snapshot = put_in_hub(cache, "a/pipe", {"config.json": config_of("echo")})
    os.mkfifo(snapshot / "model.safetensors")
    hidden = put_in_hub(cache, "a/hidden-pipe", {
        "config.json": config_of("bert"),
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": ".pipe.safetensors"}}).encode(),
    })  # fmt: skip
    os.mkfifo(hidden / ".pipe.safetensors")
    found = found_in(cache, deadline_s=10)
    assert found.complete
    why = {model.name: model.why_not for model in found.models}
    assert not any(model.can_add for model in found.models)
    assert set(why) == {"a/up", "a/empty", "a/pipe", "a/hidden-pipe"}
    assert all(why.values())
    (tmp_path / "loop").symlink_to("loop")
    caches = [Cache("torch", tmp_path / "loop"), Cache("huggingface", tmp_path / "none"), Cache("huggingface", cache)]
    states = [each["state"] for each in find_models(caches).caches]
    assert states == ["absent", "absent", "searched"]


def test_a_cache_that_fails_is_told_and_the_others_are_searched(tmp_path, monkeypatch):
    make_echo_model(tmp_path / "good" / "one")

    def refusing(path, scandir=os.scandir):
        if Path(path).name == "bad":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    (tmp_path / "bad").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    found = find_models([Cache("huggingface", tmp_path / "bad"), Cache("huggingface", tmp_path / "good")])
    assert [each["state"] for each in found.caches] == ["cannot be read: Permission denied", "searched"]
    assert [model.name for model in found.models] == ["one"]


def test_a_huge_cache_is_looked_at_within_bounds(tmp_path, monkeypatch):
    for place in range(60):
        make_echo_model(tmp_path / f"model{place:02}")
    monkeypatch.setattr(finding, "_MOST_FOUND", 20)
    found = found_in(tmp_path)
    assert (len(found.models), found.complete) == (20, False)
    monkeypatch.setattr(finding, "_MOST_ENTRIES", 10)
    found = found_in(tmp_path)
    assert (len(found.models), found.complete) == (10, False)
    assert found_in(tmp_path, deadline_s=0.0).complete is False


def test_a_model_with_too_many_files_is_told(tmp_path, monkeypatch, one):
    from ipfs_accel_node.node.content import local_folder

    put_in_hub(tmp_path, "org/name", {"config.json": config_of("echo"), **{f"{n}.txt": b"" for n in range(50)}})
    monkeypatch.setattr(local_folder, "MAX_ENTRIES", 20)
    assert (one().can_add, "entries" in one().why_not) == (False, True)


def test_a_disk_that_hangs_is_given_up_at_the_deadline(tmp_path, monkeypatch):
    make_echo_model(tmp_path / "a-quick")
    make_echo_model(tmp_path / "b-hangs")
    released = threading.Event()

    def listing(folder, list_folder=finding.list_folder):
        if folder.name == "b-hangs":
            assert released.wait(30)
        return list_folder(folder)

    monkeypatch.setattr(finding, "list_folder", listing)
    began = time.monotonic()
    found = found_in(tmp_path, deadline_s=0.5)
    released.set()
    assert time.monotonic() - began < 10
    assert ([model.name for model in found.models], found.complete, found.caches) == (["a-quick"], False, [])


def test_the_places_are_those_of_the_other_programs(monkeypatch, tmp_path):
    names = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME", "TORCH_HOME")
    for name in (*names, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def places():
        return [str(path.relative_to(tmp_path)) for _, path in config.model_caches()]

    assert places() == [
        ".cache/huggingface/hub", ".cache/torch/sentence_transformers", ".cache/torch/hub/checkpoints"
    ]  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert places() == ["x/huggingface/hub", "x/torch/sentence_transformers", "x/torch/hub/checkpoints"]
    monkeypatch.setenv("HF_HOME", "~/hf")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "t"))
    assert places() == ["hf/hub", "t/sentence_transformers", "t/hub/checkpoints"]
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "h"))
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "s"))
    assert places() == ["h", "s", "t/hub/checkpoints"]


def test_nothing_in_a_cache_is_changed(tmp_path):
    put_in_hub(tmp_path / "cache", "org/name", {"config.json": config_of("bert"), "pytorch_model.bin": b"x"})
    before = shutil.copytree(tmp_path / "cache", tmp_path / "before", symlinks=True)
    found_in(tmp_path / "cache")
    seen = [sorted(str(path.relative_to(top)) for path in top.rglob("*")) for top in (before, tmp_path / "cache")]
    assert seen[0] == seen[1]

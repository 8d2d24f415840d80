"""A model given to an IPFS daemon as files, which counts when the daemon comes to the same CID."""

from __future__ import annotations

import pytest
from fake_kubo import FakeKubo, serving
from ipfs_accel_node.node.content import kubo_add
from ipfs_accel_node.node.content.kubo import Kubo
from ipfs_accel_node.node.content.kubo_add import add_files
from ipfs_accel_node.node.content.kubo_address import parse_kubo
from ipfs_accel_node.node.content.profiles import PROFILES
from ipfs_accel_node.protocols.errors import AccelError


@pytest.fixture
def make(tmp_path, store):
    """Adds a folder with some of everything."""

    def add(profile):
        folder = tmp_path / "folder"
        (folder / "sub" / "void").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "sub" / "weights and more").write_bytes(bytes(range(256)) * 10_000)
        (folder / "sub" / "empty").touch()
        (folder / "ü+%2F.txt").write_text("a name to be quoted")
        (folder / "link").symlink_to("sub/empty")
        return store.add(folder, profile=profile)

    return add


async def give(address, store, model):
    moved = []
    async with Kubo(parse_kubo(address)) as kubo:
        await add_files(kubo, store.contents(model.cid_bytes), model.path, moved.append)
    assert sum(moved) == model.size


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
async def test_the_files_of_a_model_make_its_cid_at_the_daemon(daemon, make, store, profile):
    model = make(profile)
    await give(daemon.address, store, model)
    async with Kubo(parse_kubo(daemon.address)) as kubo:
        await kubo.pin(model.cid_bytes)
    assert model.cid in daemon.pins


async def test_a_daemon_that_comes_to_another_cid_is_told(make, store):
    kubo = FakeKubo()
    kubo.fault = "cuts small"
    with serving(kubo) as url, pytest.raises(AccelError) as failed:
        await give(url, store, make(PROFILES["kubo-cid-v1"]))
    assert failed.value.code == "kubo-failed"
    assert "it made b" in failed.value.message
    assert "--as-files" in failed.value.hint


async def test_an_answer_that_breaks_off_is_no_success(make, store):
    kubo = FakeKubo()
    kubo.fault = "breaks off"
    with serving(kubo) as url, pytest.raises(AccelError, match="no Hash") as failed:
        await give(url, store, make(PROFILES["kubo-cid-v1"]))
    assert failed.value.code == "kubo-failed"


async def test_what_no_options_give_and_too_many_files_are_refused_before_anything_is_sent(make, store, monkeypatch):
    model, kubo = make(PROFILES["unixfs-v1-2025"]), FakeKubo()
    with serving(kubo) as url:
        monkeypatch.setattr(kubo_add, "_MOST_ENTRIES", 3)
        with pytest.raises(AccelError) as failed:
            await give(url, store, model)
        assert failed.value.code == "too-large"
        monkeypatch.setattr(kubo_add, "possible_profiles", lambda _: [])
        with pytest.raises(AccelError) as failed:
            await give(url, store, model)
        assert failed.value.code == "bad-input"
    assert kubo.asked == []

"""From a folder to its CID: what counts, what is followed, what is refused."""

from __future__ import annotations

import os

import pytest
from ipfs_accel_node.node.content import local_folder, sharded
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.dag import DagWalk
from ipfs_accel_node.node.content.importer import import_folder, import_listed
from ipfs_accel_node.node.content.local_folder import list_folder
from ipfs_accel_node.node.content.unixfs import HAMT, Link, decode
from ipfs_accel_node.protocols.errors import AccelError


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_hidden_files_are_left_out(tmp_path):
    plain = write(tmp_path / "plain", {"a": b"x", "b/c": b"y"})
    other = write(tmp_path / "other", {"a": b"x", "b/c": b"y", ".git/config": b"z", ".hidden": b"z", "b/.x": b""})
    (other / ".link").symlink_to("/nowhere")
    assert import_folder(other).root == import_folder(plain).root


def test_a_link_inside_stays_a_link_and_is_copied_as_one(tmp_path):
    model = write(tmp_path / "model", {"a": b"x", "b/c": b"y"})
    targets = {"d": "a", "e": "./b/../a", "f": "b", "b/up": "../a", "again": "d"}
    for name, target in targets.items():
        (model / name).symlink_to(target)
    imported = import_listed(list_folder(model), tmp_path / "copy")
    assert imported.links == targets
    assert [file.path for file in imported.files] == ["a", "b/c"]
    assert imported.is_whole(tmp_path / "copy")
    assert import_folder(tmp_path / "copy").pack() == imported.pack() == import_folder(model).pack()
    walk = DagWalk(imported.root)
    while wanted := walk.wanted():
        walk.add(wanted[0], imported.nodes[wanted[0]])
    assert walk.finished().links == targets


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../outside", "/nowhere", "nowhere", "b", ".hidden", "a/x", "sub/../../outside", "b/x"]
)
def test_a_link_that_leads_out_is_refused(tmp_path, target):
    write(tmp_path, {"outside": b"x", "model/a": b"x", "model/.hidden": b"x", "model/sub/x": b"x"})
    (tmp_path / "model" / "b").symlink_to(target)
    with pytest.raises(AccelError, match="leads out of the folder") as refused:
        import_folder(tmp_path / "model")
    assert refused.value.code == "bad-input"
    assert "cp -rL" in refused.value.hint


def test_a_link_that_no_system_could_be_given_is_refused(tmp_path):
    write(tmp_path, {"a": b"x"})
    (tmp_path / "b").symlink_to(os.fsdecode(b"\xff"))
    with pytest.raises(AccelError, match="no text"):
        import_folder(tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "b").symlink_to("./" * 1030 + "a")
    with pytest.raises(AccelError, match="over 2048 bytes"):
        import_folder(tmp_path)


@pytest.mark.parametrize("target", [".", "..", "../sub"])
def test_a_link_that_leads_back_up_is_refused(tmp_path, target):
    write(tmp_path, {"model/a": b"x", "model/sub/b": b"x"})
    (tmp_path / "model" / "sub" / "loop").symlink_to(target)
    with pytest.raises(AccelError, match="leads back") as refused:
        import_folder(tmp_path / "model")
    assert refused.value.code == "bad-input"


def test_links_that_multiply_are_not_followed(tmp_path):
    """Twelve folders, each with four links to the next: followed, they would have 16 million files."""
    for number in range(12):
        (tmp_path / f"f{number}").mkdir()
        for name in "abcd":
            (tmp_path / f"f{number}" / name).symlink_to(f"../f{number + 1}")
    write(tmp_path, {"f12/x": b""})
    imported = import_folder(tmp_path)
    assert (len(imported.files), len(imported.links)) == (1, 48)


def test_entries_and_depth_are_bounded(tmp_path, monkeypatch):
    write(tmp_path, {"/".join("d" * 33) + "/a": b""})
    with pytest.raises(AccelError, match="nested deeper") as refused:
        import_folder(tmp_path)
    assert refused.value.code == "bad-input"
    monkeypatch.setattr(local_folder, "MAX_ENTRIES", 20)
    with pytest.raises(AccelError, match="over 20 entries") as refused:
        import_folder(tmp_path)
    assert refused.value.code == "too-large"


@pytest.fixture
def snapshot(tmp_path):
    """A model as the Hugging Face cache has it."""
    cache = write(tmp_path / "models--owner--name", {"blobs/1": b"{}", "blobs/2": b"weights", "refs/main": b"c0ffee"})
    folder = cache / "snapshots" / "c0ffee"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").symlink_to("../../blobs/1")
    (folder / "1_Pooling" / "config.json").symlink_to("../../../blobs/1")
    (folder / "model.safetensors").symlink_to(cache / "blobs" / "2")  # where it cannot be relative, it is not
    return folder


def test_a_snapshot_of_the_hugging_face_cache_has_real_files(tmp_path, snapshot):
    files = {"config.json": b"{}", "1_Pooling/config.json": b"{}", "model.safetensors": b"weights"}
    plain = write(tmp_path / "plain", files)
    imported = import_listed(list_folder(snapshot), tmp_path / "copy")
    assert imported.root == import_folder(plain).root
    assert imported.links == {}
    assert not any(path.is_symlink() for path in (tmp_path / "copy").rglob("*"))
    assert import_folder(snapshot / "1_Pooling").root == import_folder(plain / "1_Pooling").root


@pytest.mark.parametrize("target", ["../../refs/main", "../../blobs", "../../blobs/3", "../../../elsewhere/blobs/1"])
def test_only_what_lies_among_the_caches_own_blobs_is_followed(tmp_path, snapshot, target):
    write(tmp_path, {"elsewhere/blobs/1": b"secret"})
    (snapshot / "other").symlink_to(target)
    (snapshot / "round").symlink_to("round")
    with pytest.raises(AccelError) as refused:
        import_folder(snapshot)
    assert refused.value.code == "bad-input"


def test_a_blob_that_is_itself_a_link_away_is_not_followed(tmp_path, snapshot):
    write(tmp_path, {"secret": b"secret"})
    (snapshot.parent.parent / "blobs" / "3").symlink_to("../../secret")
    (snapshot / "other").symlink_to("../../blobs/3")
    with pytest.raises(AccelError, match="leads out"):
        import_folder(snapshot)


def test_empty_folders_count(tmp_path):
    """As with `ipfs add -r`; one with nothing but hidden files is empty too."""
    write(tmp_path, {"plain/a": b"x", "with/a": b"x", "with/void/.keep": b""})
    (tmp_path / "with" / "also").mkdir()
    imported = import_folder(tmp_path / "with")
    assert imported.empty_folders == ["also", "void"]
    assert imported.root != import_folder(tmp_path / "plain").root
    assert format_cid(imported.root) == "bafybeib24i3eqglv2jwfzls43sjdolq5zkkydkrdug36rfdyfygcozjjvy"


@pytest.mark.parametrize("name", ["back\\slash", "new\nline", b"latin\xe9"])
def test_names_that_others_could_not_hold_are_refused(tmp_path, name):
    write(tmp_path, {"a": b"x"})
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(AccelError, match="not a name") as refused:
        import_folder(tmp_path)
    assert refused.value.code == "bad-input"


def test_what_is_no_folder_of_files_is_refused(tmp_path):
    with pytest.raises(AccelError, match="no folder"):
        import_folder(tmp_path / "nowhere")
    with pytest.raises(AccelError, match="no files"):
        import_folder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AccelError, match="neither a file nor a folder"):
        import_folder(tmp_path)


def test_a_folder_too_large_for_one_block_is_sharded_and_read_again(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number:0100}").write_bytes(b"%d" % number)
    imported = import_folder(tmp_path)
    assert decode(imported.nodes[imported.root]).kind == HAMT
    walk = DagWalk(imported.root)
    while wanted := walk.wanted():
        walk.add(wanted[0], imported.nodes[wanted[0]])
    assert walk.finished().pack() == imported.pack()


def test_names_whose_hashes_are_alike_are_refused(monkeypatch):
    """Whoever makes such names on purpose gets no endless tower of shards."""
    monkeypatch.setattr(sharded, "hamt_hash", lambda name: 7)
    with pytest.raises(AccelError, match="deeper than a hash reaches"):
        sharded.write_shards([Link(b"", "a", 0), Link(b"", "b", 0)], 256, lambda block, below: Link(b"", "", 0))

"""From a folder to its CID: what counts, what is followed, what is refused."""

from __future__ import annotations

import os

import pytest
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.protocols.errors import AccelError


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_hidden_files_are_left_out_and_links_inside_are_followed(tmp_path):
    plain = write(tmp_path / "plain", {"a": b"x", "b/c": b"y", "d": b"x"})
    linked = write(tmp_path / "linked", {"a": b"x", "b/c": b"y", ".git/config": b"z", ".hidden": b"z"})
    (linked / "d").symlink_to("a")
    assert import_folder(linked).root == import_folder(plain).root


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "/nowhere"])
def test_a_link_that_leads_out_is_refused(tmp_path, target):
    write(tmp_path, {"outside": b"x", "model/a": b"x"})
    (tmp_path / "model" / "b").symlink_to(target)
    with pytest.raises(AccelError, match="leads out of the folder") as refused:
        import_folder(tmp_path / "model")
    assert refused.value.code == "bad-input"


@pytest.mark.parametrize("target", [".", "..", "../sub"])
def test_a_link_that_leads_back_up_is_refused(tmp_path, target):
    write(tmp_path, {"model/a": b"x", "model/sub/b": b"x"})
    (tmp_path / "model" / "sub" / "loop").symlink_to(target)
    with pytest.raises(AccelError, match="leads back") as refused:
        import_folder(tmp_path / "model")
    assert refused.value.code == "bad-input"


def test_links_that_multiply_are_bounded(tmp_path):
    """Twelve folders, each with four links to the next: without a bound 16 million files."""
    for number in range(12):
        (tmp_path / f"f{number}").mkdir()
        for name in "abcd":
            (tmp_path / f"f{number}" / name).symlink_to(f"../f{number + 1}")
    write(tmp_path, {"f12/x": b""})
    with pytest.raises(AccelError, match="entries") as refused:
        import_folder(tmp_path)
    assert refused.value.code == "too-large"


def test_a_hugging_face_cache_folder_is_explained(tmp_path):
    write(tmp_path, {"blobs/1": b"{}"})
    (tmp_path / "snapshots" / "main").mkdir(parents=True)
    (tmp_path / "snapshots" / "main" / "config.json").symlink_to("../../blobs/1")
    with pytest.raises(AccelError, match="leads out") as refused:
        import_folder(tmp_path / "snapshots" / "main")
    assert "cp -rL" in refused.value.hint


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


def test_a_folder_too_large_for_one_block_is_refused_and_never_given_a_wrong_cid(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number:0100}").write_bytes(b"")
    with pytest.raises(AccelError, match="too many entries"):
        import_folder(tmp_path)

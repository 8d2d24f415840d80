"""Which symbolic links stay inside a folder: decided from names alone, and what the system says of a real folder."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.symlinks import check_links
from ipfs_accel_node.protocols.errors import AccelError

NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=5).map("/".join).filter(bool)
TREES = st.recursive(
    st.dictionaries(NAMES, TARGETS | st.just(b""), max_size=3),
    lambda inner: st.dictionaries(NAMES, TARGETS | st.just(b"") | inner, max_size=3),
    max_leaves=6,
)


def written(tree, folder):
    folder.mkdir()
    for name, each in tree.items():
        if isinstance(each, dict):
            written(each, folder / name)
        elif isinstance(each, bytes):
            (folder / name).write_bytes(each)
        else:
            (folder / name).symlink_to(each)


def paths_of(tree, prefix=""):
    for name, each in tree.items():
        yield prefix + name, each
        if isinstance(each, dict):
            yield from paths_of(each, prefix + name + "/")


def is_accepted(tree):
    paths = dict(paths_of(tree))
    links = {path: each for path, each in paths.items() if isinstance(each, str)}
    files = {path for path, each in paths.items() if isinstance(each, bytes)}
    folders = {path for path, each in paths.items() if isinstance(each, dict)} | {""}
    try:
        check_links(links, files, folders)
    except AccelError as error:
        assert error.code == "hostile-content"
        return False
    return True


def is_inside(path, root):
    """Whether the system follows the link to something in the folder, and never leaves it on the way."""
    try:
        return os.path.realpath(path, strict=True).startswith(str(root)) and path.exists()
    except OSError:
        return False


def is_endless(root):
    """Whether one could walk down the folders for ever, which so few of them tell by how many there are."""
    walked = list(itertools.islice(os.walk(root, followlinks=True), 3000))
    return len(walked) == 3000 or any(folder.count("/") - str(root).count("/") > 30 for folder, *_ in walked)


@settings(max_examples=60, deadline=None)
@given(TREES)
@example({"a": "b", "b": "a"})
@example({"a": {"b": ".."}})
@example({"a": {"b": "../c"}, "c": {"a": "../a"}})
@example({"a": {"c": b""}, "b": "a/c", "c": "./a//c"})
def test_a_link_is_let_through_when_the_system_keeps_it_inside(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("links") / "root"
    written(tree, root)
    links = [root / path for path, each in paths_of(tree) if isinstance(each, str)]
    assert is_accepted(tree) == (all(is_inside(link, root) for link in links) and not is_endless(root))


@pytest.mark.parametrize("target", ["/", "/etc/passwd", "..", "../model/a", "b/../../model/a"])
def test_links_out_are_refused_even_where_they_lead_back_in(target):
    assert not is_accepted({"a": b"", "b": {}, "c": target})

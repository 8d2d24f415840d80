"""Kubo itself gives the same CIDs, for files and folders around every boundary."""

from __future__ import annotations

import pytest
from cid_cases import cases, folder_of, write_tree
from fuzzing.dags import HAMT
from ipfs_accel_node.node.content.cid import format_cid
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.profiles import PROFILES
from ipfs_accel_node.node.content.unixfs import decode
from kubo_process import KuboProcess, why_not_here

pytestmark = pytest.mark.skipif(bool(why_not_here()), reason=why_not_here())
PROFILE = PROFILES["unixfs-v0-2015"]
#: Kubo before 0.40 shards a folder that is exactly at the threshold; IPIP-0499 does not.
CASES = {name: tree for name, tree in cases(PROFILE) if not name.startswith("+0 ")}


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    with KuboProcess(tmp_path_factory.mktemp("kubo") / "peer") as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_kubo_gives_the_same_cid(tmp_path, peer, name):
    folder = write_tree(tmp_path / "folder", CASES[name])
    assert format_cid(import_folder(folder, PROFILE).root) == peer.cid(folder)


def test_kubo_shards_at_the_threshold_and_the_profile_over_it(tmp_path, peer):
    """The one difference that is known and meant."""
    folder = write_tree(tmp_path / "folder", folder_of(PROFILE, PROFILE.threshold))
    imported = import_folder(folder, PROFILE)
    assert decode(imported.nodes[imported.root]).kind != HAMT
    assert format_cid(imported.root) != peer.cid(folder)

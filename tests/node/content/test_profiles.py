"""Each profile gives the CIDs that its definition says: those of IPIP-0499's own fixtures, and of another importer."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from fuzzing.dags import DIRECTORY, Builder, Make, told
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.node.content.cid import format_cid, parse_cid
from ipfs_accel_node.node.content.contents import Contents
from ipfs_accel_node.node.content.importer import import_folder
from ipfs_accel_node.node.content.index import BlockIndex
from ipfs_accel_node.node.content.profiles import DEFAULT, PROFILES, find_profile, possible_profiles
from ipfs_accel_node.node.content.store import ModelStore
from ipfs_accel_node.protocols.errors import AccelError

V0, V1 = PROFILES["unixfs-v0-2015"], DEFAULT
ALPHABET = b"abcdefghijklmnopqrstuvwxyz01234567890-_"


def stream(seed, size):
    """The bytes that Kubo's tests make of a seed."""
    cipher = Cipher(ChaCha20(hashlib.sha256(seed.encode()).digest(), bytes(16)), None)
    return cipher.encryptor().update(bytes(size))


def file_cid(folder, content, profile):
    """The CID of a file, which is what the folder's only link names."""
    (folder / "file").write_bytes(content)
    imported = import_folder(folder, profile)
    (entry,) = imported.files
    nodes = {cid for cid in imported.nodes if cid != imported.root}
    links = {imported.nodes[cid] for cid in nodes}
    roots = [cid for cid in nodes if not any(cid in block for block in links)]
    return format_cid(roots[0] if roots else entry.cid(0))


@pytest.mark.parametrize(
    ("profile", "size", "seed", "cid"),
    [
        (V0, 1 << 18, "chunk-v0-seed", "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE"),
        (V0, (1 << 18) + 1, "chunk-v0-seed", "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ"),
        (V0, 174 << 18, "v0-seed", "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2"),
        (V0, (174 << 18) + 1, "v0-seed", "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW"),
        (V0, 175 << 18, "v0-seed", "QmepeWtdmS1hHXx1oZXsPUv6bMrfRRKfZcoPPU4eEfjnbf"),
        (V1, 1 << 20, "chunk-v1-seed", "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
        (V1, (1 << 20) + 1, "chunk-v1-seed", "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
    ],
)
def test_files_at_the_limits_have_the_cids_of_ipip_0499(tmp_path, profile, size, seed, cid):
    assert file_cid(tmp_path, stream(seed, size), profile) == cid


@pytest.mark.parametrize(
    ("profile", "cid"),
    [
        (V0, "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"),
        (V1, "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
        (PROFILES["kubo-cid-v1"], "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
    ],
)
def test_a_small_file_has_the_cid_of_ipip_0499(tmp_path, profile, cid):
    assert file_cid(tmp_path, b"hello world", profile) == cid


@pytest.mark.parametrize(
    ("profile", "files", "length", "last", "cid"),
    [
        (V0, 4096, 30, 30, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN"),
        (V0, 4033, 31, 31, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP"),
        (V1, 4766, 11, 21, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4"),
        (V1, 4766, 11, 22, "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu"),
    ],
)
def test_folders_at_the_threshold_and_a_byte_over_it_have_the_cids_of_ipip_0499(
    tmp_path, profile, files, length, last, cid
):
    names = bytes(ALPHABET[byte % len(ALPHABET)] for byte in stream(f"hamt-{profile.name}", 1 << 18))
    for number in range(files):
        end = number * length + (last if number == files - 1 else length)
        (tmp_path / names[number * length : end].decode()).write_bytes(b"x")
    assert format_cid(import_folder(tmp_path, profile).root) == cid


# --- any folder


class Other(Builder):
    """The independent importer with a profile's threshold."""

    def __init__(self, profile):
        leaves = "raw" if profile.leaf.kind is None else "file"
        version = 0 if len(profile.start) == 2 else 1
        make = Make(profile.chunk, False, profile.width, "balanced", version, leaves, profile.fanout, inline=-1)
        super().__init__(make)
        self.profile = profile

    def folder(self, tree):
        entries = [(self.entry(tree[name]), name) for name in sorted(tree, key=str.encode)]
        flat = self.node(entries, told(1, DIRECTORY), 0)
        taken = sum(len(name.encode()) + len(part.cid) for part, name in entries)
        size = len(self.blocks[flat.cid]) if self.profile.whole_block else taken
        return super().folder(tree) if size > self.profile.threshold else flat


def write_tree(folder, tree):
    folder.mkdir(exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, dict):
            write_tree(folder / name, content)
        elif isinstance(content, str):
            (folder / name).symlink_to(content)
        else:
            (folder / name).write_bytes(content)
    return folder


NAMES = st.text("abcxyzäあ🦆0.-_ ", min_size=1, max_size=8).filter(
    lambda name: not name.startswith(".") and name.strip(" ")
)
FILES = st.tuples(st.integers(0, 30), st.integers(-1, 1)).map(lambda size: max(0, size[0] * 64 + size[1]))
CONTENT = FILES.map(lambda size: hashlib.shake_128(b"%d" % size).digest(size))
TREES = st.recursive(
    st.dictionaries(NAMES, CONTENT, min_size=1, max_size=30),
    lambda inner: st.dictionaries(NAMES, CONTENT | inner | st.just({}), max_size=9),
    max_leaves=6,
).map(lambda tree: {**tree, "file": b"x", "link": "file"})


@settings(max_examples=150, deadline=None)
@given(TREES, st.sampled_from([*PROFILES.values()]), st.sampled_from([100, 300, 1000]), st.sampled_from([2, 16, 256]))
def test_any_folder_has_the_cid_and_the_blocks_of_another_importer(tmp_path_factory, tree, profile, threshold, fanout):
    small = replace(profile, chunk=64, width=3, threshold=threshold, fanout=fanout)
    folder = write_tree(tmp_path_factory.mktemp("model") / "model", tree)
    imported, other = import_folder(folder, small), Other(small)
    assert imported.root == other.root(tree)
    assert imported.nodes.items() <= other.blocks.items()
    assert Contents.unpack(imported.pack()).pack() == imported.pack()
    index = BlockIndex()
    index.add(folder, imported)
    assert all(index.read(cid) == other.blocks[cid] for cid in other.leaves)


# --- names, and stores


def test_a_name_that_is_no_profile_is_told_with_those_there_are():
    with pytest.raises(AccelError, match="'v2' is no CID profile") as refused:
        find_profile("v2")
    assert refused.value.code == "bad-input"
    assert all(name in refused.value.hint for name in PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_store_keeps_serves_and_recovers_a_model_of_any_profile(tmp_path, name):
    content = stream("model", (1 << 20) + 5)
    folder = write_tree(tmp_path / "model", {"weights": content, "sub": {"link": "../weights"}, "empty": b""})
    profile = find_profile(name)
    expected = import_folder(folder, profile)
    assert profile in possible_profiles(expected.root)
    store = ModelStore(tmp_path / "store")
    stored = store.add(folder, profile=profile)
    assert parse_cid(stored.cid) == expected.root
    weights = next(file for file in expected.files if file.path == "weights")
    leaf = store.read_block(weights.cid(0))
    assert leaf is not None
    assert profile.leaf.digest(content[: profile.chunk]) == hashlib.sha256(leaf).digest()
    for kept in (tmp_path / "store" / "manifests").glob("*.contents"):
        kept.unlink()
    reopened = ModelStore(tmp_path / "store")
    assert [model.cid for model in reopened.models()] == [stored.cid]
    assert reopened.verify(expected.root) == []


def test_one_folder_under_two_profiles_is_two_models(tmp_path):
    folder = write_tree(tmp_path / "model", {"config.json": b"{}", "weights": bytes(3 << 20)})
    store = ModelStore(tmp_path / "store")
    cids = {store.add(folder, profile=profile).cid for profile in PROFILES.values()}
    assert {model.cid for model in store.models()} == cids
    assert len(cids) == 3

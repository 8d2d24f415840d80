"""CID profiles: what decides, beside a folder's bytes and names, which CID it gets (IPIP-0499, UnixFS CID Profiles).

What every profile here has in common: sha2-256; chunks of one size under a balanced tree; entries whose names begin
with a dot are left out; empty folders count; symbolic links stay links; neither mode nor time of change is noted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...protocols.errors import AccelError, ErrorCode
from .cid import V0, V1_DAG_PB
from .leaves import BARE, Wrap
from .profile_names import KUBO_CID_V1, UNIXFS_V0_2015, UNIXFS_V1_2025
from .unixfs import FILE, Link, encode_directory


@dataclass(frozen=True, slots=True)
class Profile:
    """`chunk` bytes of a file make a leaf, as `leaf` says, and `width` links a file's node.

    `start` is what comes before the digest in the CID of a node. A folder that takes over `threshold` bytes is spread
    over shards of `fanout` places each; `whole_block` says what of it counts: its block as it would be written
    (block-bytes), or its entries' names and binary CIDs alone (links-bytes).
    """

    name: str
    start: bytes
    leaf: Wrap
    chunk: int
    width: int
    whole_block: bool
    threshold: int = 256 << 10
    fanout: int = 256

    def cid(self, block: bytes) -> bytes:
        """The binary CID of a node."""
        return self.start + hashlib.sha256(block).digest()

    def shards(self, links: Sequence[Link]) -> bool:
        """Whether a folder of these entries is spread over shards."""
        if self.whole_block:
            return len(encode_directory(links)) > self.threshold
        return sum(len(link.name.encode()) + len(link.cid) for link in links) > self.threshold


DEFAULT: Final = Profile(UNIXFS_V1_2025, V1_DAG_PB, BARE, chunk=1 << 20, width=1024, whole_block=True)
#: By name. The first and the last are of IPIP-0499; `kubo-cid-v1` is what `ipfs add --cid-version=1` has always given
#: where nothing else is configured, and has no name there.
PROFILES: Final = {
    profile.name: profile
    for profile in (
        DEFAULT,
        Profile(KUBO_CID_V1, V1_DAG_PB, BARE, chunk=256 << 10, width=174, whole_block=False),
        Profile(UNIXFS_V0_2015, V0, Wrap(V0, FILE), chunk=256 << 10, width=174, whole_block=False),
    )
}


def find_profile(name: str) -> Profile:
    """Raises AccelError bad-input for a name that is none."""
    if name not in PROFILES:
        raise AccelError(
            ErrorCode.BAD_INPUT, f"{name[:60]!r} is no CID profile", f"The profiles are {', '.join(PROFILES)}."
        )
    return PROFILES[name]


def possible_profiles(root: bytes) -> list[Profile]:
    """Those that may have given a folder this CID."""
    return [profile for profile in PROFILES.values() if root.startswith(profile.start)]

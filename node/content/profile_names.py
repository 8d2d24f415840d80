"""The names of the CID profiles, for settings and help texts; what they say is in `profiles`, which imports more."""

from __future__ import annotations

from typing import Final

UNIXFS_V1_2025: Final = "unixfs-v1-2025"
KUBO_CID_V1: Final = "kubo-cid-v1"
UNIXFS_V0_2015: Final = "unixfs-v0-2015"
NAMES: Final = (UNIXFS_V1_2025, KUBO_CID_V1, UNIXFS_V0_2015)
DEFAULT_NAME: Final = UNIXFS_V1_2025

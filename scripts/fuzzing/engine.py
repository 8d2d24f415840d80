"""The process that fuzzes one target until its time is over or something is found: `engine TARGET LIBFUZZER_ARGUMENTS`.

Everything of the package is instrumented while it is imported, so it is imported here and nowhere before.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["ipfs_accel_node", "fuzzing.targets"]):
    from fuzzing.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()

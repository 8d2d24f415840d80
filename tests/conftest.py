"""What all tests share."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

# A shell that runs this in the background has it ignore Ctrl-C, and all that it starts would ignore it as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["fake", "real"])
def daemon(request, tmp_path):
    """An IPFS daemon: a fake one, and a real one where an `ipfs` program is on the path."""
    from kubo_daemons import running

    with running(request.param, tmp_path) as daemon:
        yield daemon

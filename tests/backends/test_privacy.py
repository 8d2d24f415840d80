"""What computes here tells nobody outside."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROBE = """
import socket
def refuse(*_):
    raise AssertionError("a connection was attempted")
socket.socket.connect = refuse
from ipfs_accel_node.backends.openvino_backend import OpenVinoBackend
OpenVinoBackend().probe()
import openvino.tools.ovc as ovc
print(ovc.telemetry.__class__.__module__)
"""


def test_openvino_reports_its_use_to_nobody(tmp_path):
    pytest.importorskip("openvino")
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert list(tmp_path.iterdir()) == []

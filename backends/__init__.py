"""The engines that compute, and what all of them share."""

from __future__ import annotations

import sys

# openvino reports its use to its maker when it is imported, unasked. Nothing leaves this machine that way: without this
# package it does with a stand-in of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

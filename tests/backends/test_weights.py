"""What a folder may say of its weights: that they are random, and nothing else."""

from __future__ import annotations

import json
import os

import pytest
from ipfs_accel_node.backends.weights import mark_random, weights_of


def test_random_weights_are_told(tmp_path):
    assert weights_of(tmp_path) == ""
    mark_random(tmp_path, family="opt", size="tiny", seed=0)
    assert weights_of(tmp_path) == "random"
    assert json.loads((tmp_path / "weights.json").read_text())["family"] == "opt"
    assert "means nothing" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "said",
    [
        b"", b"random", b"\xff", b'"random"', b"[]", b'{"weights": "Random"}', b'{"weights": "the best there are"}',
        b'{"weights": ["random"]}', b'{"weights": {"random": 1}}', b'{"weights": true}', b"[" * 4000,
        b'{"weights": "random", "more": "' + b"x" * 4096 + b'"}',
    ],
)  # fmt: skip
def test_anything_else_says_nothing(tmp_path, said):
    (tmp_path / "weights.json").write_bytes(said)
    assert weights_of(tmp_path) == ""


def test_what_is_no_file_of_the_folder_says_nothing(tmp_path):
    folder, outside = tmp_path / "model", tmp_path / "outside.json"
    folder.mkdir()
    outside.write_text('{"weights": "random"}')
    said = folder / "weights.json"
    said.symlink_to(outside)
    assert weights_of(folder) == ""
    said.unlink()
    said.symlink_to("weights.json")
    assert weights_of(folder) == ""
    said.unlink()
    os.mkfifo(said)
    assert weights_of(folder) == ""
    said.unlink()
    said.mkdir()
    assert weights_of(folder) == ""

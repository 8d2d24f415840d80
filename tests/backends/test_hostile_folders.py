"""Whatever a model's JSON files say, it is served or refused with a code, within bounds of time and memory.

Each number of each file is set to one too large, below nothing, nought, a text and null, and each file is emptied or
taken away, one at a time; `HOSTILE_EVERY=1` takes every case, otherwise one in five.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ipfs_accel_node.backends.making import make_sentence_model, make_text_model
from ipfs_accel_node.backends.making_media import make_media_model

MEDIA = ("clip", "xclip", "clap", "wav2vec2", "videomae", "whisper", "t5")
TEXT = ("llama", "gpt2", "opt")
EVERY = int(os.environ.get("HOSTILE_EVERY", "5"))
MOST_SECONDS, MOST_MIB = 10, 700
CHILD = Path(__file__).parents[1] / "fakes" / "hostile_folders.py"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("sound")
    made = [make_sentence_model(root / "bert")]
    made += [make_text_model(root / name, name) for name in TEXT]
    return made + [make_media_model(root / name, name) for name in MEDIA]


@pytest.mark.engines
def test_every_spoilt_folder_is_served_or_refused_with_a_code(folders, tmp_path):
    command = [sys.executable, "-W", "ignore", str(CHILD), str(EVERY), str(tmp_path), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1]} ended it: {done.stderr[-2000:]}"
    cases = [line for line in lines if len(line) > 1]
    assert {name for name, outcome, *_ in cases if outcome == "served"} >= {f"{each.name} as it is" for each in folders}
    assert [case for case in cases if case[1] not in ("served", "refused")] == []
    assert [case for case in cases if case[3] > MOST_SECONDS or case[4] > MOST_MIB] == []
    assert Counter(outcome for _, outcome, *_ in cases)["refused"] > len(cases) / 4
    assert {what for _, outcome, what, *_ in cases if outcome == "refused"} <= {
        "not-a-model",
        "out-of-memory",
        "backend-disagrees",
    }

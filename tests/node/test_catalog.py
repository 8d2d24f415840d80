"""`model catalog|find|make` as a person and a program call them, without a node."""

from __future__ import annotations

import shlex

import pytest
from cluster import make_echo_model, run_json, run_program
from ipfs_accel_node.backends.checkpoints import CHECKPOINTS
from ipfs_accel_node.backends.families.known import family_of
from ipfs_accel_node.backends.making_shapes import LIKE
from ipfs_accel_node.node import cli
from ipfs_accel_node.node.hub import parse_reference


def test_the_catalogue_has_a_command_that_adds_each_of_the_twelve_families(tmp_path):
    listed = run_json("model", "catalog", data_dir=tmp_path)
    assert {each["family"] for each in listed} >= {
        *("bert", "sentence", "clip", "opt", "gpt2", "t5", "llava", "llava_next", "whisper", "wav2vec2", "clap"),
        *("videomae", "xclip"),
    }  # fmt: skip
    for each in listed:
        program, *arguments = shlex.split(each["command"])
        options = cli.build_parser().parse_args(arguments)
        assert parse_reference(options.source).repository == each["repository"]
        assert options.convert is each["pickled"]
        assert (program, each["size"] > 0, bool(each["license"]), each["gated"]) == (
            "ipfs-accel-node",
            True,
            True,
            False,
        )
    (opt,) = (each for each in listed if each["family"] == "opt")
    assert opt["command"] == "ipfs-accel-node model add hf:facebook/opt-125m --convert"
    shown = run_program("model", "catalog", data_dir=tmp_path).stdout
    assert all(each["repository"] in shown for each in listed)
    assert "licence cc-by-nc-4.0" in shown
    assert not list(tmp_path.iterdir())


def test_what_the_catalogue_says_of_tasks_is_what_this_version_does():
    for each in CHECKPOINTS:
        served = family_of({"model_type": each.model_type, "architectures": [each.architecture]})
        assert each.task == (served.task if served else "")
        if each.family in LIKE and each.family != "wav2vec2":
            assert LIKE[each.family] == each.repository


@pytest.fixture
def caches(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME", "TORCH_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def test_what_is_found_can_be_added_with_the_command_that_is_told(caches, tmp_path):
    make_echo_model(caches / "SENTENCE_TRANSFORMERS_HOME" / "org_it's one", work_ms=3)
    make_echo_model(caches / "SENTENCE_TRANSFORMERS_HOME" / "org_\x1b[31mred", work_ms=4)
    (caches / "HF_HUB_CACHE" / "models--a--broken").mkdir()
    found = run_json("model", "find", data_dir=tmp_path / "data")
    assert [model["name"] for model in found["models"]] == ["a/broken", "org/\x1b[31mred", "org/it's one"]
    broken, red, one = found["models"]
    assert (broken["command"], broken["can_add"], bool(broken["why_not"])) == ("", False, True)
    assert (red["command"], red["can_add"]) == ("", True)
    program, *arguments = shlex.split(one["command"])
    assert program == "ipfs-accel-node"
    added = run_json(*arguments, data_dir=tmp_path / "data")
    assert added["size"] == one["size"]
    shown = run_program("model", "find", "one", data_dir=tmp_path / "data")
    assert one["command"] in shown.stdout
    assert "broken" not in shown.stdout
    shown = run_program("model", "find", data_dir=tmp_path / "data").stdout
    assert "\x1b" not in shown
    assert "No model is called like none" in run_program("model", "find", "none", data_dir=tmp_path / "data").stdout


def test_a_model_is_made_and_added_or_written(tmp_path):
    data = tmp_path / "data"
    added = run_json("model", "make", "t5", "--seed", "3", data_dir=data)
    assert (added["name"], added["why_not"]) == ("t5-tiny-random", "")
    told = run_json("model", "info", "t5-tiny-random", data_dir=data)
    assert (told["task"], told["origin"]) == ("text2text-generation", "random weights, made here: t5, tiny, seed 3")
    assert "weights.json" in {file["path"] for file in told["files"]}
    assert list((data / "downloads").iterdir()) == []
    written = run_program("model", "make", "t5", "--seed", "3", "--out", tmp_path / "t5", data_dir=data)
    assert "weights: random" in written.stdout
    assert run_json("model", "cid", tmp_path / "t5", data_dir=data)["cid"] == added["cid"]
    again = run_json("model", "make", "t5", "--out", tmp_path / "t5", data_dir=data, status=2)
    assert again["error"]["code"] == "bad-input"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nothing",), "usage"), (("bert", "--size", "huge"), "usage"), (("bert", "--seed", "-1"), "bad-input"),
        (("bert", "--out", "x", "--name", "y"), "usage"), (("bert", "--name", ""), "bad-input"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_told(tmp_path, arguments, code):
    failed = run_json("model", "make", *arguments, data_dir=tmp_path / "data", status=2)
    assert failed["error"]["code"] == code

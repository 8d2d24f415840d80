"""What a backend runs models in: as asked for, else by its rule; nothing, where it has not what was asked for."""

from __future__ import annotations

import pytest
from ipfs_accel_node.node.serving.bell import Bell
from ipfs_accel_node.node.serving.measurements import Measurements
from ipfs_accel_node.node.serving.slots import Slot, SlotSettings

PROBED = {
    "backend": "cpu", "tasks": ["t"], "precisions": ["f32", "int8"], "default_precision": "f32", "device": "one",
}  # fmt: skip


@pytest.fixture
def slot_of(tmp_path):
    def make(precision, info=PROBED):
        measurements = Measurements(tmp_path / "measurements.json")
        slot = Slot("cpu", SlotSettings(1, precision, tmp_path), measurements, Bell(), lambda: None)
        slot.worker.info = dict(info)
        return slot

    return make


@pytest.mark.parametrize(("asked", "runs"), [("auto", "f32"), ("f32", "f32"), ("int8", "int8")])
def test_a_backend_runs_models_in_what_was_asked_for_or_by_its_rule(slot_of, asked, runs):
    slot = slot_of(asked)
    offer = slot.offer(b"cid", "t")
    assert (slot.precision(), offer.precision, slot.imprecise) == (runs, runs, None)


def test_a_backend_without_the_precision_offers_nothing_and_says_why(slot_of):
    slot = slot_of("int4")
    assert slot.offer(b"cid", "t") is None
    assert (slot.imprecise.code, slot.imprecise.hint) == ("unsupported-precision", "It has f32, int8.")
    assert slot.describe()["reason"] == slot.imprecise.message


def test_while_a_backend_is_probed_nothing_is_said_of_it(slot_of):
    assert slot_of("int4", {}).imprecise is None


def test_one_that_computes_nothing_has_no_precision_to_miss(slot_of):
    slot = slot_of("bf16", {"tasks": ["t"], "precisions": ["none"], "default_precision": "none"})
    assert (slot.precision(), slot.imprecise) == ("none", None)

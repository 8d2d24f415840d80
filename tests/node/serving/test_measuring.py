"""Measuring: what a fit finds again, what it never says, and what is kept."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipfs_accel_node.backends.interface import Sample
from ipfs_accel_node.node.serving.measurements import Key, MachineLock, Measurements
from ipfs_accel_node.node.serving.measuring import (
    LEAST_ROUNDS,
    MOST_ROUNDS,
    WARM_UP_ROUNDS,
    LiveCorrection,
    fit,
    measure,
)
from ipfs_accel_node.protocols.advert import Speed
from ipfs_accel_node.protocols.work import Work

KEY = Key("bafy", "cpu", "f32", 2, "torch 2.13.0 on a CPU")


class Timed:
    """A model on a clock of its own: `fixed + per_unit x bytes`, slow at first, sometimes interrupted."""

    def __init__(self, fixed, per_unit, *, per_output=0.0, first=0.0, seed=0):
        self._per_output = per_output
        self.now, self.runs = 0.0, []
        self._fixed, self._per_unit, self._first = fixed, per_unit, first
        self._rng = random.Random(seed)

    def samples(self):
        return [Sample("x" * size, {}, size) for size in (64, 1024)]

    def run(self, inputs, params):
        self.runs.append(len(inputs))
        taken = self._fixed + self._per_unit * len(inputs) + self._per_output * params.get("outputs", 0)
        if len(self.runs) <= 2:
            taken += self._first
        if self._rng.random() < 0.1:
            taken *= 5
        self.now += taken


def test_a_warm_up_and_interruptions_do_not_count():
    model = Timed(0.004, 2e-5, first=3.0)
    speed = measure(model, budget_s=1.0, clock=lambda: model.now)
    assert speed.fixed_s == pytest.approx(0.004)
    assert speed.per_unit_s == pytest.approx(2e-5)
    assert speed.unit == "bytes"
    assert speed.count >= 2 * LEAST_ROUNDS


class Writing(Timed):
    """One that writes as well."""

    def samples(self):
        return [
            Sample("x" * size, {"outputs": outputs}, size, outputs) for size, outputs in ((64, 1), (900, 1), (64, 9))
        ]


def test_reading_and_writing_are_measured_apart():
    model = Writing(0.004, 2e-5, per_output=0.03, first=3.0)
    speed = measure(model, budget_s=1.0, clock=lambda: model.now)
    assert speed.per_output_s == pytest.approx(0.03)
    assert speed.per_unit_s == pytest.approx(2e-5)
    assert speed.fixed_s == pytest.approx(0.004)
    assert speed.seconds(Work(100, 50)) == pytest.approx(0.004 + 0.002 + 1.5)


def test_the_stated_count_and_time_are_kept():
    model = Timed(0.01, 0.0)
    speed = measure(model, budget_s=1.0, clock=lambda: model.now)
    assert model.now >= 1.0
    assert speed.count == len(model.runs) - 2 * WARM_UP_ROUNDS
    fast = Timed(1e-6, 0.0)
    assert measure(fast, clock=lambda: fast.now).count == 2 * MOST_ROUNDS


def test_a_very_slow_model_is_measured_by_few_rounds_and_says_so():
    model = Timed(30.0, 0.0, seed=3)
    speed = measure(model, budget_s=1.0, clock=lambda: model.now)
    assert (len(model.runs), speed.count) == (4, 2)
    assert speed.fixed_s == pytest.approx(30.0)


def test_where_somebody_waits_no_more_rounds_are_run_than_fit_the_budget():
    alone, awaited = Timed(0.4, 0.0, seed=3), Timed(0.4, 0.0, seed=3)
    assert measure(alone, clock=lambda: alone.now).count >= 2 * LEAST_ROUNDS
    assert measure(awaited, clock=lambda: awaited.now, is_awaited=lambda: True).count < 2 * LEAST_ROUNDS
    slow = Timed(3.0, 0.0, seed=3)
    assert measure(slow, budget_s=1.0, clock=lambda: slow.now, is_awaited=lambda: True).count == 2
    fast = Timed(1e-3, 0.0, seed=3)
    assert measure(fast, budget_s=1.0, clock=lambda: fast.now, is_awaited=lambda: True).count >= 2 * LEAST_ROUNDS


taken = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=9)


@settings(deadline=None)
@given(st.dictionaries(st.tuples(st.integers(1, 10_000), st.integers(0, 3)), taken, min_size=2, max_size=6))
def test_no_part_is_ever_negative(timings):
    speed = fit(timings)
    assert speed.fixed_s >= 0
    assert speed.per_unit_s >= 0
    assert speed.per_output_s >= 0
    assert speed.spread >= 0
    assert speed.count == sum(map(len, timings.values()))


@settings(deadline=None)
@given(st.floats(0, 10), st.floats(0, 1))
def test_a_line_is_found_again(fixed, per_unit):
    speed = fit({(units, 0): [fixed + per_unit * units] * 3 for units in (64, 256, 1024)})
    assert speed.seconds(Work(512)) == pytest.approx(fixed + per_unit * 512, abs=1e-9)
    assert speed.spread == 0


def test_the_spread_is_that_of_the_worse_size():
    assert fit({(1, 0): [1.0] * 5, (2, 0): [1.0, 1.1, 1.2, 1.3, 1.4]}).spread == pytest.approx(1.4826 * 0.1 / 1.2)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=60))
def test_a_correction_stays_within_a_factor_of_eight(observed):
    correction, measured = LiveCorrection(), Speed(0.01, 0.0, "bytes", 0.0, 10)
    for seconds in observed:
        correction.observe(measured, Work(), seconds)
    assert 1 / 8 <= correction.ratio <= 8


def test_a_correction_follows_what_jobs_take():
    correction, measured = LiveCorrection(), Speed(0.1, 0.001, "bytes", 0.0, 10)
    for _ in range(40):
        correction.observe(measured, Work(100), 0.6)
    assert correction.of(measured).seconds(Work(100)) == pytest.approx(0.6, rel=0.02)


def test_what_was_measured_is_there_again(tmp_path):
    path = tmp_path / "folder" / "measurements.json"
    kept = Measurements(path).put(
        KEY, Speed(0.1, 1e-6, "bytes", 0.02, 12), precision="bf16", load_s=1.5, memory_bytes=7
    )
    assert Measurements(path).get(KEY) == kept
    assert Measurements(path).get(Key("bafy", "cpu", "f32", 4, "torch 2.13.0 on a CPU")) is None
    assert [each.name for each in path.parent.iterdir()] == ["measurements.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "entries": 1}', '{"version": 1, "entries": {"a": {"speed": {}}}}']
)
def test_a_damaged_file_is_begun_anew(tmp_path, content):
    path = tmp_path / "measurements.json"
    path.write_text(content)
    measurements = Measurements(path)
    assert measurements.get(KEY) is None
    measurements.put(KEY, Speed(0.1, 0.0, "bytes", 0.0, 1), precision="f32", load_s=0.0, memory_bytes=0)
    assert json.loads(path.read_text())["entries"][str(KEY)]["speed"]["fixed_s"] == 0.1


def test_only_so_many_are_kept_and_the_oldest_go(tmp_path, monkeypatch):
    monkeypatch.setattr("ipfs_accel_node.node.serving.measurements._MOST_ENTRIES", 2)
    measurements, speed = Measurements(tmp_path / "m.json"), Speed(0.1, 0.0, "bytes", 0.0, 1)
    keys = [Key(str(number), "cpu", "f32", 1, "") for number in range(3)]
    for number, key in enumerate(keys):
        measurements.put(key, speed, precision="f32", load_s=0.0, memory_bytes=0, now=10.0 - number)
    assert [measurements.get(key) is not None for key in keys] == [True, True, False]


def test_a_full_disk_costs_no_more_than_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    measurements = Measurements(tmp_path / "file" / "m.json")
    measurements.put(KEY, Speed(0.1, 0.0, "bytes", 0.0, 1), precision="f32", load_s=0.0, memory_bytes=0)
    assert measurements.get(KEY) is not None
    assert "not kept" in caplog.text


HOLD = """
import sys; from pathlib import Path
from ipfs_accel_node.node.serving.measurements import MachineLock
assert MachineLock(Path(sys.argv[1])).try_acquire(); print("held", flush=True); sys.stdin.read()
"""


def test_one_process_of_the_machine_measures_at_a_time(tmp_path):
    path = tmp_path / "lock"
    lock = MachineLock(path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        assert not lock.try_acquire()
        other.kill()
    assert lock.try_acquire()
    assert not MachineLock(path).try_acquire()
    lock.release()
    assert lock.try_acquire()
    lock.release()


def test_where_there_can_be_no_lock_measuring_goes_on(tmp_path, caplog):
    assert MachineLock(tmp_path / "no folder" / "lock").try_acquire()
    assert "without the lock" in caplog.text

"""What a sweep took is measured, and kept beside what was foreseen."""

from __future__ import annotations

import threading

import numpy as np
from helpers import tiny_plan

from scaling_nb import Sweep
from scaling_nb.events import StepLogged
from scaling_nb.metering import Meter


def test_the_meter_sees_memory_and_leaves_pauses_out(monkeypatch):
    monkeypatch.setattr("scaling_nb.metering.LOOK_SECONDS", 0.02)
    trains = [True]
    meter = Meter(lambda: trains[0], list)
    meter.start()
    threading.Event().wait(0.1)
    trains[0] = False
    block = np.ones(2**23)
    threading.Event().wait(0.5)
    taken = meter.stop()
    assert 0.05 < taken.seconds < 0.5
    assert taken.peak_bytes > 0.9 * block.nbytes


def test_foreseen_and_taken_are_kept_in_the_store(tiny_recipe, tmp_path):
    sweep = Sweep(tiny_recipe, tiny_plan(tiny_recipe), store=tmp_path / "runs.db")
    assert sweep.costs() == (None, None)
    estimate = sweep.estimate()
    sweep.events.connect(lambda e: sweep.status() if isinstance(e, StepLogged) else None)
    assert sweep.start().wait(60)
    predicted, actual = Sweep.open(tmp_path / "runs.db", tiny_recipe).costs()
    assert (predicted.seconds, predicted.peak_bytes) == (estimate.seconds, estimate.peak_bytes)
    assert 0 < actual.seconds < 1.05 * sweep.status().elapsed


def test_what_a_plan_foresaw_is_kept_by_its_sweep(tiny_recipe, tmp_path):
    plan = tiny_plan(tiny_recipe)
    estimate = plan.estimate()
    assert plan.last_estimate == estimate
    assert plan == tiny_plan(tiny_recipe)
    sweep = Sweep(tiny_recipe, plan, store=tmp_path / "runs.db", executor="inline")
    assert sweep.start().wait(60)
    predicted, actual = Sweep.open(tmp_path / "runs.db", tiny_recipe).costs()
    assert (predicted.seconds, predicted.peak_bytes) == (estimate.seconds, estimate.peak_bytes)
    assert actual is not None

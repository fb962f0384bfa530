"""What is left of a sweep, and how long it takes, on a clock that the test turns."""

from __future__ import annotations

import math

import pytest
from helpers import tiny_plan

from scaling_nb.progress import StepClock, remaining_steps


class Now:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def clock(now):
    return StepClock(now)


@pytest.fixture
def specs(tiny_recipe):
    by_size = {spec.size: spec for spec in tiny_plan(tiny_recipe).runs}
    return [by_size[size] for size in sorted(by_size)]


def flops(spec):
    return spec.flops_per_token * spec.tokens_per_step


def train(clock, now, spec, *, seconds_a_step, steps=10, times=5):
    clock.begin(spec)
    for _ in range(times):
        now.at += seconds_a_step * steps
        clock.note(spec, steps)


def test_nothing_is_known_before_a_step(clock, specs):
    assert math.isnan(clock.eta([(10, flops(specs[0]))], 1))
    assert clock.eta([], 1) == 0.0
    assert clock.eta([(0, flops(specs[0]))], 1) == 0.0


def test_a_size_is_judged_by_its_own_steps(clock, now, specs):
    train(clock, now, specs[0], seconds_a_step=0.5)
    assert clock.eta([(20, flops(specs[0]))], 1) == pytest.approx(10.0)


def test_a_size_between_is_judged_by_its_neighbours(clock, now, specs):
    low, middle, high = specs[:3]
    train(clock, now, low, seconds_a_step=1.0)
    train(clock, now, high, seconds_a_step=2.0)
    assert 10.0 < clock.eta([(10, flops(middle))], 1) < 20.0


def test_a_trunk_that_waited_its_turn_took_no_longer_steps(clock, now, specs):
    first, second = specs[:2]
    train(clock, now, first, seconds_a_step=0.5)
    train(clock, now, second, seconds_a_step=0.5, times=20)
    train(clock, now, first, seconds_a_step=0.5)
    assert clock.eta([(10, flops(first))], 1) == pytest.approx(5.0)


def test_a_pause_is_no_steps_time(clock, now, specs):
    train(clock, now, specs[0], seconds_a_step=0.5)
    now.at += 3600
    clock.interrupt()
    for _ in range(3):
        now.at += 5.0
        clock.note(specs[0], 10)
    assert clock.eta([(10, flops(specs[0]))], 1) == pytest.approx(5.0)


def test_an_inherited_curve_is_no_speed(clock, now, specs):
    train(clock, now, specs[0], seconds_a_step=0.5)
    clock.begin(specs[0])
    now.at += 1e-6
    clock.note(specs[0], 100_000)
    assert clock.eta([(10, flops(specs[0]))], 1) == pytest.approx(5.0)


def test_two_workers_share_the_jobs(clock, now, specs):
    train(clock, now, specs[0], seconds_a_step=1.0)
    jobs = [(10, flops(specs[0]))] * 4
    assert clock.eta(jobs, 2) == pytest.approx(20.0)


def test_what_is_left_of_a_trunk_is_its_tail_and_the_other_branches(tiny_recipe):
    plan = tiny_plan(tiny_recipe, (2e6, 4e6), reuse="cooldown")
    job = max(plan.jobs(), key=len)
    whole, step_flops = remaining_steps(job, {})
    half, _ = remaining_steps(job, {job[-1].run_id: job[-1].n_tokens // 2})
    assert step_flops == flops(job[-1])
    assert whole - half == pytest.approx(job[-1].n_tokens // 2 / job[-1].tokens_per_step)
    assert whole > job[-1].n_steps
    assert remaining_steps([], {}) == (0.0, 0.0)

"""Schedules: one line up, then each by its formula; chosen by the config."""

import math

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.training.config import CHOICES, TrainingConfig
from tinyllm.training.schedules import DEEPSPEED, SCHEDULES, learning_rate, warmup_cosine

OURS = [schedule for schedule in SCHEDULES if schedule not in DEEPSPEED]


def rates(steps=100, warmup=10, beyond=20, **changes):
    config = TrainingConfig(steps=steps, warmup_steps=warmup, learning_rate=1.0, min_learning_rate=0.1, **changes)
    return np.array([learning_rate(config, step) for step in range(steps + beyond)])


def test_the_config_knows_the_schedules_that_there_are():
    assert set(CHOICES["schedule"]) == set(SCHEDULES)
    assert TrainingConfig().schedule == "cosine"


@pytest.mark.parametrize("schedule", OURS)
def test_every_schedule_begins_with_the_same_line_to_the_peak(schedule):
    np.testing.assert_allclose(rates(schedule=schedule)[:11], np.arange(1, 12) / 11)
    assert rates(schedule=schedule, warmup=0)[0] == 1.0
    assert (rates(schedule=schedule) <= 1).all()


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("constant", {10: 1, 50: 1, 119: 1}),
        ("linear", {10: 1, 55: 0.55, 100: 0.1, 119: 0.1}),
        ("cosine", {10: 1, 40: 0.1 + 0.45 * (1 + math.cos(math.pi / 3)), 55: 0.55, 100: 0.1, 119: 0.1}),
        ("wsd", {10: 1, 79: 1, 80: 1, 90: 0.55, 99: 0.145, 100: 0.1, 119: 0.1}),
        ("inverse_sqrt", {10: 1, 43: 0.5, 98: 1 / 3}),
    ],
)
def test_each_falls_by_its_formula(schedule, at):
    got = rates(schedule=schedule)
    np.testing.assert_allclose([got[step] for step in at], list(at.values()), rtol=1e-12)
    assert (np.diff(got[10:]) <= 0).all()


def test_the_share_of_wsd_that_falls_can_be_chosen():
    got = rates(schedule="wsd", decay_share=0.5)
    np.testing.assert_allclose(got[[50, 75, 100]], [1, 0.55, 0.1], rtol=1e-12)
    assert rates(schedule="wsd", decay_share=0.001)[99] == 1.0


def test_wsd_does_not_depend_on_its_end_before_it_falls():
    np.testing.assert_array_equal(rates(schedule="wsd", steps=100)[:80], rates(schedule="wsd", steps=900)[:80])


def test_the_cosine_is_what_it_was():
    """To the last bit, by the formula as it stood before there were other schedules."""
    for step in range(0, 2100, 7):
        progress = min((step - 100) / 1900, 1.0)
        before = (
            1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 0.5 * (1 + math.cos(math.pi * progress)) * (1e-3 - 1e-4)
        )
        assert learning_rate(TrainingConfig(), step) == before
        assert warmup_cosine(step, peak=1e-3, floor=1e-4, warmup_steps=100, steps=2000) == before


# --- DeepSpeed's ------------------------------------------------------------------------------------------------------


def deepspeeds(schedule, total, warmup, shape, peak, start, end):
    """The rates of DeepSpeed's schedules, restated as it computes them: a counter that begins at -1, where the rate is
    the least one, and goes on after every update."""
    warmup, rates, iteration = max(2, warmup), [], -1
    for _ in range(total + 20):
        if iteration < 0:
            share = 0.0
        elif iteration < warmup:
            share = math.log(iteration + 1) / math.log(warmup) if shape == "log" else iteration / warmup
        elif schedule == "warmup_decay_lr":
            share = max(0.0, (total - iteration) / max(1.0, total - warmup))
        else:
            share = 1.0
        rate = start + (peak - start) * share
        if schedule == "warmup_cosine_lr" and iteration >= warmup:
            progress = min(1.0, (iteration - warmup + 1) / max(1, total - warmup))
            rate = peak * (end / peak + (1 - end / peak) * (1 + math.cos(math.pi * progress)) / 2)
        rates.append(rate)
        iteration += 1
    return rates


@pytest.mark.parametrize("schedule", DEEPSPEED)
@pytest.mark.parametrize("shape", ["log", "linear"])
@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (100, 0), (30, 1), (20, 20), (10, 40)])
def test_deepspeeds_schedules_are_its_formulas_at_every_step(schedule, shape, total, warmup):
    steps = {"schedule_steps": total, "steps": total + 5} if schedule != "warmup_lr" else {"steps": total}
    config = TrainingConfig(
        schedule=schedule,
        warmup_type=shape,
        warmup_min_lr=0.02,
        warmup_steps=warmup,
        learning_rate=0.5,
        min_learning_rate=0.03,
        **steps,
    )
    ours = [learning_rate(config, step) for step in range(total + 20)]
    np.testing.assert_allclose(ours, deepspeeds(schedule, total, warmup, shape, 0.5, 0.02, 0.03), rtol=1e-12)


def test_deepspeeds_schedules_rise_by_the_logarithm_from_0_and_end_with_the_run_unless_told():
    config = TrainingConfig(schedule="warmup_decay_lr", steps=50, warmup_steps=10, learning_rate=1.0)
    assert [learning_rate(config, step) for step in (0, 1, 51)] == [0, 0, 0]
    assert learning_rate(config, 5) == pytest.approx(math.log(5) / math.log(10))
    assert learning_rate(config, 31) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_type": "log"}, "warmup_type is an option of the schedule warmup_lr, .*, not of cosine; leave it out"),
        ({"schedule": "warmup_lr", "schedule_steps": 9}, "schedule_steps is an option .*, not of warmup_lr, which has"),
        ({"schedule": "warmup_lr", "decay_share": 0.1}, "decay_share is an option of the schedule wsd, not of"),
        ({"schedule": "warmup_lr", "warmup_type": "lin"}, "warmup_type must be one of log, linear, not 'lin'"),
        ({"schedule": "warmup_lr", "warmup_min_lr": -1.0}, "warmup_min_lr must not be negative"),
        ({"schedule": "warmup_decay_lr", "schedule_steps": 0}, "schedule_steps must be at least 1, not 0"),
    ],
)
def test_options_that_a_schedule_does_not_use_or_understand_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**changes)

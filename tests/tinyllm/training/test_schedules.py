"""Schedules: one line up, then each by its formula; chosen by the config."""

import math

import numpy as np
import pytest

from tinyllm.training.config import CHOICES, TrainingConfig
from tinyllm.training.schedules import SCHEDULES, learning_rate, warmup_cosine


def rates(steps=100, warmup=10, beyond=20, **changes):
    config = TrainingConfig(steps=steps, warmup_steps=warmup, learning_rate=1.0, min_learning_rate=0.1, **changes)
    return np.array([learning_rate(config, step) for step in range(steps + beyond)])


def test_the_config_knows_the_schedules_that_there_are():
    assert set(CHOICES["schedule"]) == set(SCHEDULES)
    assert TrainingConfig().schedule == "cosine"


@pytest.mark.parametrize("schedule", SCHEDULES)
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

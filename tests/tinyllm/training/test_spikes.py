"""Loss spikes: planted ones are found, clean steps are not, and each policy does what it says, to the bit."""

import collections
import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tinyllm.data import RandomBatches
from tinyllm.errors import UserError
from tinyllm.models import Decoder, gpt2
from tinyllm.training import loop
from tinyllm.training.config import LEAST, TrainingConfig
from tinyllm.training.divergence import Diverged, TooManySpikes
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.spikes import LEAST_STEPS, NEIGHBOURS, SpikeMonitor, jumps, robust_z, z_score

SHAPE = gpt2.config(vocab_size=17, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8)
CONFIG = TrainingConfig(
    steps=60, batch_size=16, learning_rate=3e-3, min_learning_rate=3e-4, warmup_steps=5, seed=3, on_spike="skip"
)
TOKENS = np.arange(3000) ** 2 % 17  # a text with a rule to learn


def make(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=8, seed=config.seed)
    return Pretraining(Decoder(SHAPE, seed=config.seed), batches, config)


def records_of(training, steps=None, **callbacks):
    """Train on to a step; returns the records."""
    records = []
    stop = (lambda: training.step >= steps) if steps else (lambda: False)
    pretrain(training, after_step=records.append, stop=stop, **callbacks)
    return records


def random_tokens(model, inputs, targets, compute):
    random = np.random.default_rng(0)
    return compute(random.integers(0, 17, inputs.shape), random.integers(0, 17, targets.shape))


def gradients_times_ten(model, inputs, targets, compute):
    loss = compute(inputs, targets)
    for p in model.parameters().values():
        p.grad *= 10
    return loss


def not_a_number(model, inputs, targets, compute):
    weight = model.final_norm.weight
    weight.data[0], kept = np.nan, weight.data[0]
    try:
        return compute(inputs, targets)
    finally:
        weight.data[0] = kept


KINDS = {"random tokens": random_tokens, "gradients times ten": gradients_times_ten, "NaN": not_a_number}


@pytest.fixture
def plant(monkeypatch):
    """plant(kind, steps): the batches that a run without roll-backs meets at these steps (from 1) go wrong."""

    def planted(kind, *steps):
        original = loop.accumulate

        def accumulate(training, inputs, targets, first_sample, samples):
            def compute(inputs, targets):
                return original(training, inputs, targets, first_sample, samples)

            if first_sample // training.config.batch_size + 1 in steps:
                return KINDS[kind](training.model, inputs, targets, compute)
            return compute(inputs, targets)

        monkeypatch.setattr(loop, "accumulate", accumulate)

    return planted


# ---------------------------------------------------------------------------------------------------- the score


def test_the_score_of_ten_numbers_by_hand():
    others = np.array([2.0, 2.1, 1.9, 2.2, 2.0, 1.8, 2.1, 1.9, 2.0, 9.0])
    # Median 2.0; distances 0 .1 .1 .2 0 .2 .1 .1 0 7, whose median is 0.1: one outlier moves neither.
    assert robust_z(2.5, others, floor=1e-9) == pytest.approx(0.5 / 0.14826, rel=1e-6)
    assert (2.5 - others.mean()) / others.std() < 0  # with mean and standard deviation it is not even high
    assert robust_z(2.5, others, floor=0.25) == pytest.approx(2.0)


def test_a_falling_loss_is_judged_by_how_it_falls():
    noise = np.random.default_rng(0).normal(0, 0.02, 61)
    curve = 1 + 3 * np.exp(-np.arange(61) / 60) + noise
    assert len(jumps(curve)) == 61 - NEIGHBOURS
    assert abs(z_score(curve[-1], curve[:-1], 1e-9)) < 3
    assert z_score(curve[-1] + 0.9, curve[:-1], 1e-9) > 8
    assert robust_z(curve[-1] + 0.9, curve[:-1], 1e-9) < 1  # lies within what came before


def learned(values, **options):
    monitor = SpikeMonitor(**options)
    for value in values:
        monitor.learn(None, value, 1.0 + value)
    return monitor


def test_a_quiet_window_does_not_cry_wolf():
    monitor = learned([2.0] * LEAST_STEPS)
    assert monitor.judge(2.1, 3.3) is None
    assert monitor.judge(2.2, 3.0) == {"of": "loss_nats", "z": 10.0}
    assert monitor.judge(2.0, 9.0)["of"] == "gradient_norm"
    assert monitor.judge(0.1, 0.001) is None  # only upwards
    assert monitor.judge(0.0, 0.0) is None  # a batch without targets


def test_nothing_is_judged_before_enough_is_known():
    assert learned([2.0] * (LEAST_STEPS - 1)).judge(100.0, 100.0) is None
    assert learned([2.0] * LEAST_STEPS).judge(100.0, 100.0) is not None
    assert LEAST["spike_window"] == LEAST_STEPS  # else a window could never suffice


def test_spikes_do_not_move_the_level_until_there_are_too_many():
    monitor = learned([2.0] * LEAST_STEPS, patience=3)
    for _ in range(3):
        spike = monitor.judge(5.0, 6.0)
        assert "new_level" not in spike
        monitor.learn(spike, 5.0, 6.0)
    spike = monitor.judge(5.0, 6.0)
    assert spike["new_level"]
    monitor.learn(spike, 5.0, 6.0)
    assert monitor.judge(5.0, 6.0) is None
    assert monitor.state()["loss_nats"] == [5.0]


@pytest.mark.parametrize(("loss", "norm", "of"), [(np.nan, 1.0, "loss_nats"), (1.0, np.inf, "gradient_norm")])
def test_what_is_no_number_is_a_spike_from_the_first_step_on(loss, norm, of):
    for active in (True, False):
        assert SpikeMonitor(active=active).judge(loss, norm) == {"of": of, "z": None}


# --------------------------------------------------------------------------------------------- recorded steps


RECORDED = json.loads((Path(__file__).parent / "recorded_steps.json").read_text())


def judged(**options):
    """The monitor over the recorded steps of a real run: (clean steps taken for spikes, missed batches)."""
    monitor, alarms, missed = SpikeMonitor(**options), [], []
    planted = collections.defaultdict(list)
    for step, kind, loss, norm in RECORDED["planted"]:
        planted[step].append((kind, loss, norm))
    steps = zip(RECORDED["loss_nats"], RECORDED["gradient_norm"], strict=True)
    for step, (loss, norm) in enumerate(steps, 1):
        missed += [(step, kind) for kind, *measured in planted[step] if monitor.judge(*measured) is None]
        spike = monitor.judge(loss, norm)
        alarms += [step] if spike else []
        monitor.learn(spike, loss, norm)
    return alarms, missed


def test_of_a_real_run_every_planted_batch_is_found_and_no_clean_step():
    assert len(RECORDED["loss_nats"]) == 2000
    assert len(RECORDED["planted"]) > 150
    assert judged() == ([], [])


def test_a_threshold_too_low_or_too_high_shows():
    assert len(judged(threshold=3.0)[0]) > 10
    assert len(judged(threshold=20.0)[1]) > 10


# ------------------------------------------------------------------------------------------------- the policies


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [48, 60])
def test_planted_batches_are_found_and_clean_ones_are_not(plant, kind, step):
    plant(kind, step)
    training = make()
    records = records_of(training)
    assert [record["step"] for record in records] == list(range(1, 61))
    assert [record["step"] for record in records if "spike" in record] == [step]
    assert records[step - 1]["skipped"] == "spike"
    assert training.optimizer.steps == 59


@pytest.mark.parametrize("kind", KINDS)
def test_a_skipped_batch_leaves_no_trace(plant, kind):
    never = make()
    records_of(never, steps=49)
    never.batches.position += CONFIG.batch_size
    never.step += 1
    records_of(never)

    plant(kind, 50)
    skipped = make()
    records_of(skipped)
    np.testing.assert_array_equal(skipped.store.values, never.store.values)
    for name, array in skipped.optimizer.arrays.items():
        np.testing.assert_array_equal(array, never.optimizer.arrays[name])
    assert skipped.spikes.state() == never.spikes.state()


def test_warn_records_and_changes_nothing(plant):
    plant("gradients times ten", 50)
    off, warned = make(on_spike="off"), make(on_spike="warn")
    assert not any("spike" in record for record in records_of(off))
    (record,) = [record for record in records_of(warned) if "spike" in record]
    assert (record["step"], record["spike"]["of"]) == (50, "gradient_norm")
    assert "skipped" not in record
    np.testing.assert_array_equal(off.store.values, warned.store.values)


@pytest.mark.parametrize("policy", ["off", "warn"])
def test_nan_stops_a_run_that_does_not_skip(plant, policy):
    plant("NaN", 50)
    training = make(on_spike=policy)
    with pytest.raises(Diverged, match="step 50 came to no number") as caught:
        records_of(training)
    assert training.step == 49
    assert caught.value.record["first_nan"] == {"op": "layer_norm", "phase": "forward", "layer": "final_norm"}


@pytest.mark.parametrize("policy", ["skip", "roll-back"])
def test_nan_that_is_skipped_is_recorded_with_its_op(plant, policy):
    plant("NaN", 10)  # before the monitor knows enough to judge numbers
    record = records_of(make(on_spike=policy), steps=12)[9]
    assert record["spike"] == {"of": "loss_nats", "z": None}
    assert record["skipped"] == "spike"
    assert record["first_nan"] == {"op": "layer_norm", "phase": "forward", "layer": "final_norm"}
    assert ("no_roll_back" in record) == (policy == "roll-back")


def test_nan_without_end_stops_every_run(plant):
    plant("NaN", *range(10, 60))
    training = make(most_skips=4)
    with pytest.raises(Diverged, match="step 14 came to no number"):
        records_of(training)


def test_a_change_of_level_is_learned_after_some_skips(plant):
    plant("gradients times ten", *range(50, 60))
    records = records_of(make(most_skips=4))
    assert [record["step"] for record in records if "skipped" in record] == [50, 51, 52, 53]
    assert [record["step"] for record in records if "spike" in record] == [50, 51, 52, 53, 54]
    assert records[53]["spike"].get("new_level") is True


def test_rolling_back_is_restarting_behind_the_bad_batch(plant):
    restarted = make()
    records_of(restarted, steps=40)
    restarted.batches.position = 50 * CONFIG.batch_size
    records_of(restarted)

    plant("random tokens", 50)
    training, going_back = make(on_spike="roll-back"), []
    before = records_of(training, steps=40)
    checkpoint = copy.deepcopy((training.store.values, *training.state()))

    def roll_back(metrics):
        going_back.append(metrics)
        training.roll_back(lambda: restore(training, checkpoint))
        return True

    after = records_of(training, roll_back=roll_back)
    assert [record["step"] for record in before + after] == [*range(1, 41), *range(41, 50), *range(41, 61)]
    assert [(metrics["step"], metrics["skipped"]) for metrics in going_back] == [(50, "spike")]
    np.testing.assert_array_equal(training.store.values, restarted.store.values)
    assert training.state()[1] | {"spikes": None} == restarted.state()[1] | {"spikes": None}
    assert training.spikes.state() == restarted.spikes.state() | {"roll_backs": 1}


def restore(training, checkpoint):
    values, arrays, numbers = checkpoint
    training.store.values[...] = values
    training.load_state(arrays, numbers)


def test_too_many_roll_backs_end_the_run_with_advice(plant):
    plant("gradients times ten", *range(50, 60))
    training = make(on_spike="roll-back", most_roll_backs=2)
    records_of(training, steps=49)
    checkpoint = copy.deepcopy((training.store.values, *training.state()))

    def roll_back(metrics):
        training.roll_back(lambda: restore(training, checkpoint))
        return True

    with pytest.raises(
        TooManySpikes, match=r"step 50 is a spike \(gradient norm .* gone back 2 times already"
    ) as caught:
        records_of(training, roll_back=roll_back)
    assert caught.value.record["spike"]["of"] == "gradient_norm"
    np.testing.assert_array_equal(training.store.values, checkpoint[0])


def test_the_scalers_overflows_are_no_spikes(plant):
    training = make(precision="fp16", on_spike="skip")
    training.scaler.scale = 2.0**40
    with np.errstate(all="ignore"):
        first = records_of(training, steps=1)[0]
    assert first["skipped"] == "overflow"
    assert "spike" not in first
    assert training.scaler.scale == 2.0**39
    assert training.spikes.in_a_row == 0


def test_a_loss_that_is_no_number_in_fp16_goes_by_the_policy(plant):
    plant("NaN", 2)
    warning, skipping = (make(precision="fp16", on_spike=policy) for policy in ("warn", "skip"))
    with np.errstate(all="ignore"):
        warned, skipped = (records_of(training, steps=2)[1] for training in (warning, skipping))
    assert warned["skipped"] == "overflow"
    assert skipped["skipped"] == "spike"
    assert warning.scaler.state() == {"scale": 2.0**15, "good_steps": 0}
    assert skipping.scaler.state() == {"scale": 2.0**16, "good_steps": 1}  # it never saw the batch
    assert warned["first_nan"] == skipped["first_nan"]
    assert warned["first_nan"]["layer"] == "final_norm"


def test_the_monitor_resumes_as_it_was(plant):
    plant("random tokens", 47, 48, 55)
    through = make()
    expected = records_of(through)
    first = make()
    records = records_of(first, steps=47)
    assert first.spikes.in_a_row == 1
    second = make()
    restore(second, copy.deepcopy((first.store.values, *first.state())))
    assert second.spikes.in_a_row == 1
    records += records_of(second)
    for one, two in zip(records, expected, strict=True):
        assert one | {"tokens_per_second": 0} == two | {"tokens_per_second": 0}
    np.testing.assert_array_equal(second.store.values, through.store.values)


def test_a_checkpoint_from_before_the_monitor_still_loads():
    training = make()
    arrays, numbers = training.state()
    del numbers["spikes"]
    make().load_state(arrays, numbers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_spike": "rollback"}, "on_spike must be one of off, warn, skip, roll-back, not 'rollback'; did you mean"),
        ({"spike_threshold": 0.0}, "spike_threshold must be a number above 0"),
        ({"spike_threshold": float("nan")}, "spike_threshold must be a number above 0"),
        ({"spike_window": 10}, "spike_window must be at least 45, not 10"),
        ({"most_skips": 0}, "most_skips must be at least 1"),
        ({"most_roll_backs": 0}, "most_roll_backs must be at least 1"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**changes)

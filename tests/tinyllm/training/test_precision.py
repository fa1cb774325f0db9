"""Mixed precision: the loss scale and its limits, steps that are skipped, what cannot be trained in half precision."""

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autograd as ag
from tinyllm.data import RandomBatches
from tinyllm.errors import UserError
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig
from tinyllm.training.divergence import Diverged, LossScaleExhausted
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.precision import FixedLossScale, LossScaler, PatientLossScaler, activation_dtype, make_scaler

SHAPE = gpt2.config(
    vocab_size=17, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=6, dropout=0.2
)
FP16 = TrainingConfig(
    steps=6, batch_size=4, precision="fp16", learning_rate=1e-2, min_learning_rate=1e-3, warmup_steps=2, seed=5
)
TOKENS = np.arange(300) ** 2 % 17
IDS = np.arange(24).reshape(4, 6) % 17


def make(config=FP16, dtype="float32"):
    model = Decoder(SHAPE, seed=config.seed, dtype=dtype)
    return Pretraining(model, RandomBatches(TOKENS, batch_size=4, context=6, seed=config.seed), config)


# --- The scale --------------------------------------------------------------------------------------------------------


def after(scaler, *overflows):
    """The scale after each of these steps."""
    return [scaler.update(overflow) or scaler.scale for overflow in overflows]


def test_the_scale_is_halved_by_an_overflow_and_doubled_after_an_interval_without_one():
    scaler = LossScaler(scale=8.0, interval=3)
    assert after(scaler, False, False, True, False, False, False, False) == [8, 8, 4, 4, 4, 8, 8]


def test_good_steps_are_counted_anew_after_a_change():
    scaler = LossScaler(scale=8.0, interval=2)
    assert after(scaler, False, False, False, True, False, False) == [8, 16, 16, 8, 8, 16]


def test_the_scale_begins_as_pytorchs_and_stays_in_float32():
    assert (LossScaler().scale, LossScaler().interval) == (65536, 2000)
    largest = LossScaler(scale=2.0**127, interval=1)
    assert after(largest, False, False) == [2.0**127] * 2


def test_without_scaling_nothing_changes():
    scaler = LossScaler(active=False)
    assert after(scaler, True, False) == [1, 1]


def test_a_scaler_goes_on_as_it_was():
    first, second = LossScaler(interval=3), LossScaler(interval=3)
    after(first, True, False, False)
    second.load_state(first.state())
    assert after(second, False, False, True) == after(first, False, False, True) == [65536, 65536, 32768]


def deepspeeds(overflows, power, window, hysteresis, consecutive, least):
    """The scales of DeepSpeed's DynamicLossScaler, restated as it counts; "error" where it ends the run."""
    scale, last_overflow, left, scales = 2.0**power, -1, hysteresis, []
    for iteration, overflow in enumerate(overflows):
        if overflow:
            if hysteresis == 1 or left == 1:
                if scale == least:
                    return [*scales, "error"]
                scale = max(scale / 2, least)
            else:
                left -= 1
            last_overflow = iteration
        else:
            if consecutive:
                left = hysteresis
            stable = iteration - last_overflow - 1
            if stable > 0 and stable % window == 0:
                if not consecutive:
                    left = hysteresis
                scale *= 2
        scales.append(scale)
    return scales


@settings(max_examples=150)
@given(
    overflows=st.lists(st.sampled_from([False, False, False, True]), min_size=20, max_size=80),
    power=st.integers(2, 8),
    window=st.integers(1, 6),
    hysteresis=st.integers(1, 4),
    consecutive=st.booleans(),
    least=st.sampled_from([1.0, 2.0, 3.0]),
    cut=st.integers(1, 20),
)
def test_patient_scaling_is_deepspeeds_also_when_it_is_stopped_and_resumed(
    overflows, power, window, hysteresis, consecutive, least, cut
):
    def make():
        return PatientLossScaler(2.0**power, window, hysteresis, consecutive, least)

    scaler, scales = make(), []
    for n, overflow in enumerate(overflows):
        if n == cut:
            earlier, scaler = scaler, make()
            scaler.load_state(earlier.state())
        if overflow and scaler.exhausted:
            scales.append("error")
            break
        scaler.update(overflow)
        scales.append(scaler.scale)
    assert scales == deepspeeds(overflows, power, window, hysteresis, consecutive, least)


def test_the_config_names_the_scaler():
    def scaler(**options):
        return make_scaler(TrainingConfig(precision="fp16", **options))

    assert vars(scaler()) == vars(LossScaler())
    assert vars(make_scaler(TrainingConfig())) == vars(LossScaler(active=False))
    assert vars(scaler(initial_scale_power=3, loss_scale_window=5)) == vars(LossScaler(scale=8.0, interval=5))
    patient = {"hysteresis": 3, "consecutive_hysteresis": True, "min_loss_scale": 4.0, "loss_scale_window": 7}
    assert vars(scaler(loss_scaling="patient")) == vars(PatientLossScaler(2.0**16, 1000, 2, False, 1.0))
    assert vars(scaler(loss_scaling="patient", **patient)) == vars(PatientLossScaler(2.0**16, 7, 3, True, 4.0))
    fixed = scaler(loss_scaling="fixed", loss_scale=128.0)
    assert isinstance(fixed, FixedLossScale)
    assert after(fixed, True, False, True) == [128, 128, 128]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hysteresis": 2}, "hysteresis is an option of fp16, and fp32 scales no loss; leave it out"),
        ({"loss_scaling": "fixed", "precision": "bf16"}, "loss_scaling is an option of fp16, and bf16"),
        ({"precision": "fp16", "hysteresis": 2}, "hysteresis is an option of the loss scaling patient, not of dynamic"),
        (
            {"precision": "fp16", "loss_scaling": "fixed", "loss_scale_window": 3},
            "loss_scale_window is .* not of fixed",
        ),
        (
            {"precision": "fp16", "loss_scaling": "fix"},
            "loss_scaling must be one of dynamic, patient, fixed, not 'fix'",
        ),
        ({"precision": "fp16", "loss_scaling": "fixed", "loss_scale": 0.5}, "loss_scale must be from 1 to .*, not 0.5"),
        ({"precision": "fp16", "loss_scaling": "patient", "min_loss_scale": 2.0**17}, "begins at 2.16: that must lie"),
        ({"precision": "fp16", "initial_scale_power": 127}, "the loss scale begins at 2.127: that must lie between"),
        ({"precision": "fp16", "loss_scale_window": 0}, "loss_scale_window must be at least 1, not 0"),
    ],
)
def test_options_of_another_scaling_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**changes)


# --- A step that is skipped -------------------------------------------------------------------------------------------


def everything(training):
    """All that a step could change, as bytes and numbers."""
    arrays, numbers = training.state()
    return training.store.values.tobytes(), {name: array.tobytes() for name, array in arrays.items()}, numbers


def test_an_overflow_moves_nothing_but_the_position_and_the_scale():
    training, records = make(dataclasses.replace(FP16, steps=1)), []
    training.scaler.scale = 2.0**40
    weights, state, numbers = everything(training)
    with np.errstate(over="ignore", invalid="ignore"):
        pretrain(training, after_step=records.append)
    assert records[0]["skipped"] == "overflow"
    assert records[0]["loss_scale"] == 2.0**40
    assert everything(training)[:2] == (weights, state)
    assert training.state()[1] == numbers | {
        "step": 1,
        "batch_position": 4,
        "loss_scaling": {"scale": 2.0**39, "good_steps": 0},
    }
    assert training.optimizer.steps == 0
    assert all(p.grad is None for p in training.store.parameters.values())


def test_the_scale_falls_until_gradients_fit_and_training_goes_on():
    training, records = make(dataclasses.replace(FP16, steps=40)), []
    training.scaler.scale = 2.0**30
    with np.errstate(over="ignore", invalid="ignore"):
        pretrain(training, after_step=records.append)
    skipped = [record["step"] for record in records if "skipped" in record]
    assert skipped == list(range(1, len(skipped) + 1))
    assert 5 < len(skipped) < 20
    assert training.optimizer.steps == 40 - len(skipped)
    assert records[-1]["loss_nats"] < records[0]["loss_nats"]


def test_gradients_that_no_scale_can_hold_end_the_run():
    training = make()
    training.model.parameters()["blocks.0.feed_forward.up.weight"].data[...] = 1e5  # infinite in float16
    training.scaler.scale, before = 2.0, training.store.values.copy()
    with np.errstate(all="ignore"), pytest.raises(Diverged, match=r"^step 3 came to no number") as caught:
        pretrain(training)
    assert "blocks.0.feed_forward.up" in str(caught.value)
    np.testing.assert_array_equal(training.store.values, before)


def test_an_overflow_at_the_least_scale_ends_the_run_before_anything_changes():
    patient = {"loss_scaling": "patient", "initial_scale_power": 41, "min_loss_scale": 2.0**40}
    training, records = make(dataclasses.replace(FP16, **patient)), []
    weights, state, _ = everything(training)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(LossScaleExhausted) as caught:
        pretrain(training, after_step=records.append)
    assert [record["loss_scale"] for record in records] == [2.0**41, 2.0**41]  # patience, then scale
    assert str(caught.value).startswith("step 3: gradients overflow float16 even at the least loss scale, 1.09951e+12 ")
    assert caught.value.record["first_nan"] == {"cause": caught.value.cause}
    assert everything(training)[:2] == (weights, state)


def test_a_fixed_scale_skips_what_overflows_and_stays():
    training, records = make(dataclasses.replace(FP16, loss_scaling="fixed", loss_scale=2.0**40, steps=2)), []
    with np.errstate(over="ignore", invalid="ignore"):
        pretrain(training, after_step=records.append)
    assert [(record["skipped"], record["loss_scale"]) for record in records] == [("overflow", 2.0**40)] * 2


# --- Small gradients --------------------------------------------------------------------------------------------------


def test_scaling_keeps_gradients_that_float16_would_lose():
    """With the loss made small, as a share of a large batch is, most gradients are below 6e-8."""

    def gradient(precision, scale):
        model = Decoder(SHAPE, seed=0)
        model.activation_dtype = activation_dtype(precision)
        loss = model.loss(IDS, IDS // 2) * np.float32(1e-6)
        loss.backward(np.float32(scale))
        return np.concatenate([p.grad.ravel() for p in model.parameters().values()]) / scale

    exact = gradient("fp32", 1)
    plain, scaled = (np.linalg.norm(gradient("fp16", scale) - exact) / np.linalg.norm(exact) for scale in (1, 2**20))
    assert plain > 0.3
    assert scaled < 0.01


# --- What does not go together ----------------------------------------------------------------------------------------


def test_bf16_without_ml_dtypes_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(UserError, match=r'bf16 needs a NumPy with bfloat16: pip install "tinyllm\[bf16\]", or choose'):
        activation_dtype("bf16")


def test_float64_weights_are_not_trained_in_half_precision():
    with pytest.raises(UserError, match=r"fp16 is for float32 weights, and this model's are float64; .*fp32"):
        make(dtype="float64")


def test_half_precision_sets_the_activations_and_leaves_the_weights():
    training = make()
    assert training.model.activation_dtype == np.float16
    assert training.store.values.dtype == training.store.gradients.dtype == np.float32
    with ag.no_grad():
        assert training.model.hidden(IDS).dtype == np.float16

"""The loop: a batch in pieces equals the batch, seeds belong to samples, a resumed run is the same run."""

import dataclasses

import numpy as np
import pytest

from tinyllm.data import RandomBatches
from tinyllm.data.batches import IGNORED
from tinyllm.errors import UserError
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig
from tinyllm.training.divergence import Diverged, watched
from tinyllm.training.loop import Pretraining, accumulate, dropout_seeds, pretrain

SHAPE = gpt2.config(
    vocab_size=17, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=6, dropout=0.2
)
CONFIG = TrainingConfig(steps=6, batch_size=4, learning_rate=1e-2, min_learning_rate=1e-3, warmup_steps=2, seed=5)
TOKENS = np.arange(300) ** 2 % 17  # a text with a rule to learn


def make(config=CONFIG, dtype="float64"):
    model = Decoder(SHAPE, seed=config.seed, dtype=dtype)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=6, seed=config.seed)
    return Pretraining(model, batches, config)


def test_a_batch_in_pieces_has_the_gradient_of_the_whole_batch():
    inputs, targets = make().batches.batch(0, 4)
    targets = targets.copy()
    targets[0] = -100  # the first piece has fewer targets than the others
    targets[1, 2:] = -100
    whole = make()
    loss = accumulate(whole, inputs, targets, first_sample=40)
    for pieces in (2, 4):
        cut = make(dataclasses.replace(CONFIG, accumulation=pieces))
        assert accumulate(cut, inputs, targets, first_sample=40) == pytest.approx(loss, rel=1e-12)
        for name, p in cut.model.parameters().items():
            expected = whole.model.parameters()[name].grad
            np.testing.assert_allclose(p.grad, expected, rtol=1e-9, atol=1e-14, err_msg=name)


def gradients_of(pieces, dtype, how=accumulate):
    """dict parameter -> gradient of a batch of 12 whose samples have from 0 to 6 targets, in that many pieces."""
    training = make(dataclasses.replace(CONFIG, batch_size=12, accumulation=pieces), dtype)
    inputs, targets = training.batches.batch(0, 12)
    targets = targets.copy()
    targets[:3] = IGNORED  # of four pieces the first has none
    for sample in range(3, 12):
        targets[sample, sample % 7 :] = IGNORED
    how(training, inputs, targets, 40)
    training.store.collect()
    return {name: p.grad.copy() for name, p in training.model.parameters().items()}


def mean_of_means(training, inputs, targets, first_sample):
    """The usual mistake: the mean loss of each piece, divided by the number of pieces."""
    model, config = training.model, training.config
    for piece in np.split(np.arange(len(inputs)), config.accumulation):
        seeds = dropout_seeds(config.seed, (first_sample + piece).astype(np.uint64))
        (model.loss(inputs[piece], targets[piece], dropout_seed=seeds) / config.accumulation).backward()


def largest_error(gradients, expected):
    """Of any parameter, relative to its largest entry, or a millionth of the model's where it is all but zero."""
    largest = max(abs(g).max() for g in expected.values())
    return max(
        abs(gradients[name] - g).max() / max(abs(g).max(), 1e-6 * largest)
        for name, g in expected.items()
        if not name.endswith("key.bias")  # zero by symmetry: rounding alone
    )


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 1e-6), ("float64", 1e-12)])
def test_four_pieces_of_three_are_one_batch_of_twelve(dtype, bar):
    whole = gradients_of(1, dtype)
    assert largest_error(gradients_of(4, dtype), whole) < bar
    assert largest_error(gradients_of(12, dtype), whole) < bar
    assert largest_error(gradients_of(4, dtype, mean_of_means), whole) > 0.1


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 1e-6), ("float64", 1e-12)])
def test_a_run_in_pieces_is_the_run(dtype, bar):
    weights = []
    for pieces in (1, 4):
        training = make(dataclasses.replace(CONFIG, batch_size=12, accumulation=pieces, optimizer="sgd"), dtype)
        pretrain(training)
        weights.append(training.store.values)
    assert abs(weights[0] - weights[1]).max() < bar * abs(weights[0]).max()


def test_dropout_seeds_are_distinct_and_depend_on_the_run():
    seeds = dropout_seeds(3, np.arange(1000, dtype=np.uint64))
    assert len(set(seeds.tolist())) == 1000
    assert not set(seeds.tolist()) & set(dropout_seeds(4, np.arange(1000, dtype=np.uint64)).tolist())


def test_the_loop_reports_every_step_and_learns():
    training, records = make(dataclasses.replace(CONFIG, steps=40)), []
    pretrain(training, after_step=records.append)
    assert [record["step"] for record in records] == list(range(1, 41))
    assert set(records[0]) == {"step", "loss_nats", "learning_rate", "gradient_norm", "tokens_per_second"}
    assert np.mean([r["loss_nats"] for r in records[-5:]]) < records[0]["loss_nats"] - 0.3
    assert records[0]["learning_rate"] == pytest.approx(1e-2 / 3)  # two warm-up steps
    assert records[39]["learning_rate"] < 1.1e-3


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    training = make()
    training.model.parameters()["blocks.1.attention.key.weight"].data[0, 1] = np.nan
    before = training.store.values.copy()
    with pytest.raises(Diverged, match=r"^step 1 came to no number, so training stopped before its update") as caught:
        pretrain(training)
    np.testing.assert_array_equal(training.store.values, before)
    assert training.step == 0
    message = str(caught.value)
    assert (
        "Weight of linear held NaN already when it came in, layer blocks.1.attention.key; x: float64[4, 6, 8], "
        in message
    )
    assert "weight: float64[8, 8], " in message
    assert "1 NaN" in message
    assert "layers.py:" in message
    assert "go back to a checkpoint before it, with a lower learning rate" in message


def test_an_overflow_is_traced_to_the_op_that_made_it_by_computing_the_step_again():
    training = make(dtype="float32")
    training.model.parameters()["blocks.0.feed_forward.up.weight"].data[...] = 1e38
    with np.errstate(all="ignore"), pytest.raises(Diverged) as caught:
        pretrain(training)
    cause = caught.value.cause
    assert (cause.op, cause.phase, cause.path) == ("linear", "forward", "blocks.0.feed_forward.up")
    assert "lower learning rate (--training.learning-rate)" in str(caught.value)


def test_gradients_whose_norm_overflows_are_named_too():
    training = make(dtype="float32")
    training.model.parameters()["final_norm.weight"].data[...] = 1e25
    with np.errstate(all="ignore"), pytest.raises(Diverged, match="Every op gave finite numbers; the largest entry of"):
        pretrain(training)


def test_watched_training_names_the_op_at_once_and_changes_no_number():
    plain, debugged = make(), make()
    pretrain(plain)
    with watched(debugged):
        pretrain(debugged)
    np.testing.assert_array_equal(plain.store.values, debugged.store.values)
    broken = make()
    broken.model.parameters()["blocks.0.attention.query.bias"].data[0] = np.inf
    with (
        pytest.raises(Diverged, match=r"step 1 .* Bias of linear held infinities already.*\.0\.attention\.query"),
        watched(broken),
    ):
        pretrain(broken)


def test_stop_ends_the_loop_between_steps():
    training, records = make(), []
    pretrain(training, after_step=records.append, stop=lambda: len(records) == 2)
    assert training.step == 2
    assert training.batches.position == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw"},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "nesterov": True, "schedule": "linear"},
        {"optimizer": "lion", "schedule": "inverse_sqrt", "no_decay": ("embedding.*",)},
        {"optimizer": "muon", "schedule": "wsd", "decay_share": 0.5, "learning_rate_factors": {"blocks.1.*": 0.1}},
        {"optimizer": "adafactor", "schedule": "constant"},
    ],
)
@pytest.mark.parametrize(
    ("dtype", "precision"), [("float32", "fp32"), ("float64", "fp32"), ("float32", "fp16"), ("float32", "bf16")]
)
def test_stopping_and_going_on_is_bit_identical_to_going_through(changes, dtype, precision):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes", reason="bfloat16 in NumPy needs ml_dtypes: the extra bf16")
    config = dataclasses.replace(CONFIG, precision=precision, **changes)
    through, losses = make(config, dtype), []
    pretrain(through, after_step=lambda record: losses.append(record["loss_nats"]))

    first, halves = make(config, dtype), []
    pretrain(first, after_step=lambda record: halves.append(record["loss_nats"]), stop=lambda: len(halves) == 3)
    arrays, numbers = first.state()
    weights = {name: array.copy() for name, array in first.store.weights().items()}
    second = make(config, dtype)
    second.model.load_weights(weights)
    second.load_state({name: array.copy() for name, array in arrays.items()}, numbers)
    pretrain(second, after_step=lambda record: halves.append(record["loss_nats"]))

    assert halves == losses
    for name, p in second.model.parameters().items():
        np.testing.assert_array_equal(p.data, through.model.parameters()[name].data, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 6, "accumulation": 4}, "batch_size 6 is not divisible by accumulation 4"),
        ({"optimizer": "adam"}, "optimizer must be one of adamw, sgd, .*, not 'adam'; did you mean 'adamw'"),
        ({"precision": "fp8"}, "precision must be one of fp32, fp16, bf16, not 'fp8'"),
        ({"precision": "bf61"}, "precision must be one of fp32, fp16, bf16, not 'bf61'; did you mean 'bf16'"),
        ({"learning_rate": -1.0}, "must not be negative"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be at least 1"),
    ],
)
def test_a_wrong_config_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**changes)

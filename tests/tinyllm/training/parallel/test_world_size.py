"""However many ranks share the work, and whatever they part among them, the run is that of one process."""

import functools

import numpy as np
import pytest
from rank_runs import SMALL_BUCKETS, assert_same_bits, changed, deviations, make_training, trained, trained_on
from rank_threads import LateRanks, on_ranks

from tinyllm.models import DecoderConfig
from tinyllm.training.divergence import Diverged
from tinyllm.training.loop import pretrain
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.parted_gradients import PartedGradients
from tinyllm.training.parallel.parted_weights import PartedWeights
from tinyllm.training.parallel.shared_store import SharedStore

STAGES = (0, 1, 2, 3)
BOUND = {"float64": 1e-10, "float32": 1e-5}
"""Of the losses; weights have ten times as much."""


@functools.cache
def usual_run():
    """On one process."""
    return trained()


def assert_close(run, other, dtype="float64"):
    of_losses, of_weights = deviations(run, other)
    assert of_losses < BOUND[dtype]
    assert of_weights < 10 * BOUND[dtype]


@pytest.mark.parametrize(("size", "stage", "dtype"), [(2, 1, "float32"), (2, 3, "float64")])
def test_a_hundred_steps_are_those_of_one_process(size, stage, dtype):
    """The whole table is printed by tests/benchmarks/world_size.py."""
    config = changed(steps=100, warmup_steps=10, accumulation=1)
    run = trained_on(size, config, dtype, zero=stage, reduce_bucket=3000, gather_bucket=3000)
    assert_close(run, trained(None, config, dtype), dtype)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_ranks_trains_as_one(size, stage):
    assert_close(trained_on(size, zero=stage, **SMALL_BUCKETS), usual_run())


@pytest.mark.parametrize("stage", [1, 3])
@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "sgd"])
def test_so_does_every_optimizer(optimizer, stage):
    config = changed(optimizer=optimizer, steps=4)
    assert_close(trained_on(2, config, zero=stage, **SMALL_BUCKETS), trained(None, config))


LLAMA = DecoderConfig(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    max_position_embeddings=6, position="rope", norm="rmsnorm", feed_forward="swiglu", tie_word_embeddings=False,
)  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_free_head_without_learned_positions(stage):
    config = changed(steps=4)
    assert_close(trained_on(2, config, shape=LLAMA, zero=stage, **SMALL_BUCKETS), trained(None, config, shape=LLAMA))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_the_same_at_every_stage(precision):
    config = changed(precision=precision, accumulation=1, steps=6)
    runs = [trained_on(2, config, "float32", zero=stage, **SMALL_BUCKETS) for stage in STAGES]
    for run in runs[1:]:
        assert_same_bits(run, runs[0])
    # Rounding to half precision differs, for products of another number of rows.
    np.testing.assert_allclose(runs[0][0], trained(None, config, "float32")[0], rtol=2e-3)


def test_all_stages_have_the_same_bits_where_a_batch_is_one_piece():
    config = changed(accumulation=1, steps=6)
    runs = [trained_on(4, config, "float32", zero=stage, **SMALL_BUCKETS) for stage in STAGES]
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


OPTIONS = (
    {"reduce_bucket": 64},
    {"gather_bucket": 64},
    {"overlap": False},
    {"reduce_scatter": False},
    {"all_gather": False},
)


@pytest.mark.parametrize("stage", STAGES)
def test_how_messages_are_sent_changes_no_bit(stage):
    config = changed(steps=2)
    run = trained_on(2, config, zero=stage)
    for options in OPTIONS:
        assert_same_bits(trained_on(2, config, zero=stage, **options), run)
    assert_same_bits(trained_on(2, config, zero=stage, ranks=Ranks), run)


def test_a_second_run_has_the_same_bits():
    config = changed(steps=2)
    assert_same_bits(trained_on(4, config, zero=3), trained_on(4, config, zero=3))


# -------------------------------------------------------------------------------------- decisions, the same everywhere


def breaking(training, at_step):
    """Make the last norm of this rank's model give NaN in one step."""
    layer = training.model.final_norm
    forward = layer.forward

    def broken(x):
        return forward(x * np.nan if training.step == at_step else x)

    layer.forward = broken


def records_with_nan_on_one(ranks, config, stage):
    """(records, error) of a run in whose third step rank 1 meets a NaN in its share."""
    training = make_training(ranks, config, "float32", zero=stage, **SMALL_BUCKETS)
    if ranks.rank == 1:
        breaking(training, at_step=2)
    records, error = [], None
    try:
        pretrain(training, after_step=records.append)
    except Diverged as diverged:
        error = diverged
    for record in records:
        del record["tokens_per_second"]
    return records, error


@pytest.mark.parametrize("stage", STAGES)
def test_a_nan_on_one_rank_is_left_out_by_all_and_named_by_all(stage):
    config = changed(steps=4, on_spike="skip")
    (records, error), (others, _) = on_ranks(2, lambda ranks: records_with_nan_on_one(ranks, config, stage), LateRanks)
    assert error is None
    np.testing.assert_equal(records, others)
    assert [record.get("skipped") for record in records] == [None, None, "spike", None]
    assert records[2]["first_nan"] == {"op": "multiply", "phase": "forward", "layer": "final_norm"}
    assert all(np.isfinite(record["loss_nats"]) for record in records if "skipped" not in record)


def test_a_nan_on_one_rank_stops_all_with_one_reason():
    config = changed(steps=4, on_spike="warn")
    (_, error), (_, other) = on_ranks(2, lambda ranks: records_with_nan_on_one(ranks, config, 3), LateRanks)
    assert str(error) == str(other)
    assert "final_norm" in str(error)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("stage", STAGES)
def test_an_overflow_on_one_rank_halves_the_scale_of_all(stage):
    config = changed(steps=3, precision="fp16", accumulation=1)

    def scales(ranks):
        training = make_training(ranks, config, "float32", zero=stage, **SMALL_BUCKETS)
        backward = training.store.backward

        def overflowing(loss, seed, last=True):
            if training.step == 1 and ranks.rank == 1:
                seed = seed * np.float32(np.inf)
            backward(loss, seed, last)

        training.store.backward = overflowing
        records = []
        pretrain(training, after_step=records.append)
        return [(record["loss_scale"], record.get("skipped"), record["loss_nats"]) for record in records]

    ours, theirs = on_ranks(2, scales, LateRanks)
    assert ours == theirs
    assert [entry[:2] for entry in ours] == [(2.0**16, None), (2.0**16, "overflow"), (2.0**15, None)]


# ------------------------------------------------------------------------------------------------ the test of the tests


def sent_too_early(self, loss, seed, sending):
    loss.backward(seed, on_leaf=lambda leaf: sending.send_rest())


def not_published(self):
    pass


def published_by_one(self):
    publish(self)
    self.values[: self.cuts[1]] *= 1 if self.ranks.first else 1 + 1e-9


def a_mean(self):
    finish(self)
    self.gradients /= self.ranks.size


def clipped_by_one(self, max_norm, norm=None):
    return clip(self, max_norm if self.ranks.first else 2 * max_norm, norm)


def only_the_last_piece(self, bucket, array, messages):
    self.summed_before = False
    take_in(self, bucket, array, messages)


def without_waiting(self, bucket, array, messages):
    take_in(self, bucket, array, ())


def stale(self, unit):
    """Weights gathered once and never again."""
    self.__dict__.setdefault("kept", {}).setdefault(unit, gathered_array(self, unit))
    return self.kept[unit]


publish, finish, clip = SharedStore.publish, SharedStore.finish, SharedStore.clip
take_in, gathered_array = PartedGradients.take_in, PartedWeights.gathered_array


def assert_right_at_once_and_late(right, stage):
    for ranks in (Ranks, LateRanks):
        assert_close(trained_on(2, ranks=ranks, zero=stage, **SMALL_BUCKETS), right)


@pytest.mark.parametrize(
    ("stage", "of", "method", "mistake"),
    [
        (0, SharedStore, "walk", sent_too_early),
        (0, SharedStore, "finish", a_mean),
        (1, SharedStore, "publish", not_published),
        (1, SharedStore, "publish", published_by_one),
        (1, SharedStore, "clip", clipped_by_one),
        (2, PartedGradients, "take_in", only_the_last_piece),
        (2, PartedGradients, "take_in", without_waiting),
        (3, PartedWeights, "gathered_array", stale),
    ],
)
def test_mistakes_are_noticed(monkeypatch, stage, of, method, mistake):
    right = usual_run()
    monkeypatch.setattr(of, method, mistake)
    with pytest.raises(AssertionError):
        assert_right_at_once_and_late(right, stage)

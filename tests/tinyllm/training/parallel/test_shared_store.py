"""What the ranks' stores send, when, and what they hold meanwhile."""

import dataclasses
import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_runs import (
    CONFIG,
    SHAPE,
    SMALL_BUCKETS,
    bytes_in_theory,
    changed,
    finish,
    make_training,
    persistent_bytes,
)
from rank_threads import LateRanks, on_ranks

import autograd as ag
from tinyllm.generation import generate
from tinyllm.models import Decoder
from tinyllm.models.module import Module
from tinyllm.training import ParameterStore
from tinyllm.training.loop import one_step
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.buckets import Sending, make_buckets
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.parted_gradients import MOST_UNDER_WAY, PartedGradients
from tinyllm.training.parallel.parted_weights import PartedWeights
from tinyllm.training.parallel.shared_store import SharedStore

STAGES = (0, 1, 2, 3)
ONE_PIECE = changed(accumulation=1, steps=2)


# ------------------------------------------------------------------------------------------------------------- buckets


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=12), st.integers(1, 900))
def test_buckets_are_whole_neighbours_that_fill_the_store(shapes, limit):
    parameters = {f"p{i}": ag.Tensor(np.zeros((n, 1) if m else n), True) for i, (n, m) in enumerate(shapes)}
    store = ParameterStore(parameters)
    buckets = make_buckets(store, limit)
    assert [bucket.earliest for bucket in buckets] == sorted((bucket.earliest for bucket in buckets), reverse=True)
    covered = 0
    for bucket in sorted(buckets, key=lambda bucket: bucket.where.start):
        places = [store.places[name] for name in bucket.names]
        assert bucket.where == slice(covered, places[-1].end)
        assert places[0].start == covered
        assert bucket.size <= limit or len(places) == 1
        assert len({place.group for place in places}) == 1
        assert bucket.earliest == min(int(name[1:]) for name in bucket.names)
        covered = bucket.where.stop
    assert covered == store.size


@given(st.permutations(range(6)))
def test_buckets_go_out_in_their_order_whatever_arrives_first(arrivals):
    store = ParameterStore({f"p{i}": ag.Tensor(np.zeros((64, 1)), True) for i in range(6)})
    buckets, sent = make_buckets(store, 64), []
    sending = Sending(buckets, sent.append)
    by_name = {bucket.names[0]: bucket for bucket in buckets}
    for number, i in enumerate(arrivals):
        sending.arrived(by_name[f"p{i}"])
        assert {bucket.names[0] for bucket in sent} <= {f"p{j}" for j in arrivals[: number + 1]}
    assert sent == buckets


class TwoBlocks(Module):
    """y = Σ of a w over its blocks, of which only some are used."""

    def __init__(self):
        self.scale = ag.Tensor(np.full((3, 2), 2.0), requires_grad=True)
        self.blocks = [OneWeight(), OneWeight()]

    def hidden(self, used):
        x = ag.Tensor(np.ones((3, 2))) * self.scale
        for block in (block for block, uses in zip(self.blocks, used, strict=True) if uses):
            x = ag.recompute(block.forward, x)
        return x

    def loss(self, used):
        return self.hidden(used).sum()

    def forward(self, used):
        return self.hidden(used)


class OneWeight(Module):
    def __init__(self):
        self.weight = ag.Tensor(np.full((3, 2), 3.0), requires_grad=True)

    def forward(self, x):
        return x * self.weight


def gradients_when_some_are_unused(ranks, stage):
    """[gradient of scale, of block 0, of block 1] after each of two steps, gathered from the ranks' parts."""
    model, parallel = TwoBlocks(), ParallelConfig(zero=stage, reduce_bucket=64)
    store = (SharedStore, SharedStore, PartedGradients)[stage](model, None, parallel, ranks)
    found = []
    for used in ([(True, False), (True, True)], [(True, False), (True, False)]):
        store.zero()
        store.backward(model.loss(used[ranks.rank]), np.ones(()))
        whole = np.zeros(store.size)
        whole[store.mine] = store.own_gradients
        ranks.all_gather(whole, store.cuts)
        found.append([float(place.view(whole)[0, 0]) for place in store.places.values()])
    return found


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_parameter_that_a_rank_does_not_use_is_sent_as_zeros(stage):
    """Block 1 is used by rank 1 alone in the first step, by nobody in the second."""
    first, second = on_ranks(2, lambda ranks: gradients_when_some_are_unused(ranks, stage), LateRanks)[0]
    assert first == [3.0 + 9.0, 2.0 + 6.0, 6.0]
    assert second == [3.0 + 3.0, 2.0 + 2.0, 0.0]


def test_forgotten_zeros_would_be_noticed(monkeypatch):
    def without_zeros(self, bucket):
        self.under_way += self.sum_over_ranks(self.gradients[bucket.where], bucket.where.start)

    monkeypatch.setattr(SharedStore, "send", without_zeros)
    _, second = on_ranks(2, lambda ranks: gradients_when_some_are_unused(ranks, 0), LateRanks)[0]
    assert second[2] != 0.0


# ------------------------------------------------------------------------------------------------------------ messages


def messages_of_a_step(size=2, stage=0, **parallel):
    """The first rank's messages in a step, "backward ends" among them."""

    def step(ranks):
        training = make_training(ranks, ONE_PIECE, zero=stage, **SMALL_BUCKETS | parallel)
        ranks.messages.clear()
        one_step(training)
        return ranks.messages

    return on_ranks(size, step)[0]


def kinds(messages):
    return [message.kind for message in messages]


@pytest.mark.parametrize("stage", STAGES)
def test_with_overlap_buckets_start_before_backward_ends_and_without_none_does(stage):
    summing = "reduce_scatter" if stage else "all_reduce"
    on, off = (kinds(messages_of_a_step(stage=stage, overlap=overlap)) for overlap in (True, False))
    assert summing in on[: on.index("backward ends")]
    assert summing not in off[: off.index("backward ends")]
    assert sorted(on) == sorted(off)


@pytest.mark.parametrize("stage", STAGES)
def test_all_ranks_send_the_same_in_the_same_order(stage):
    def step(ranks):
        training = make_training(ranks, CONFIG, zero=stage, **SMALL_BUCKETS)
        ranks.messages.clear()
        one_step(training)
        return [(message.kind, message.num_bytes) for message in ranks.messages]

    first, *others = on_ranks(4, step)
    assert all(other == first for other in others)


@pytest.mark.parametrize(
    ("stage", "options", "expected"),
    [
        (0, {}, {"all_reduce"}),
        (1, {}, {"reduce_scatter", "all_gather"}),
        (1, {"reduce_scatter": False}, {"all_reduce", "all_gather"}),
        (2, {"all_gather": False}, {"reduce_scatter", "broadcast"}),
        (3, {"reduce_scatter": False, "all_gather": False}, {"all_reduce", "broadcast"}),
    ],
)
def test_kinds_of_messages(stage, options, expected):
    sent = [message for message in messages_of_a_step(stage=stage, **options) if message.num_bytes]
    assert set(kinds(sent)) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_no_message_is_larger_than_its_bucket(stage):
    for message in messages_of_a_step(stage=stage, reduce_bucket=500, gather_bucket=300):
        assert message.num_bytes <= 8 * (300 if message.kind == "all_gather" else 500)


@pytest.mark.parametrize("stage", STAGES)
def test_bytes_of_a_step_are_those_of_the_paper(stage):
    """One pass over the gradient and, from stage 1 on, one over the weights; at stage 3 two over those in blocks.

    A message's bytes are those of its array, of which each of N ranks sends and receives (N - 1) / N.
    """
    training = make_training(config=ONE_PIECE)
    size = 8 * training.store.size
    in_blocks = 8 * sum(place.end - place.start for name, place in training.store.places.items() if "blocks" in name)
    sent = {}
    for message in messages_of_a_step(stage=stage):
        sent[message.kind] = sent.get(message.kind, 0) + message.num_bytes
    gathered = (0, size, size, size + in_blocks)[stage]
    assert sent["reduce_scatter" if stage else "all_reduce"] == size
    assert sent.get("all_gather", 0) == gathered


def test_pieces_of_a_batch_are_sent_once_unless_gradients_are_parted():
    def sums(ranks, stage):
        training = make_training(ranks, CONFIG, zero=stage)
        one_step(training)
        return kinds(ranks.messages).count("backward ends")

    assert [on_ranks(2, lambda ranks, stage=stage: sums(ranks, stage))[0] for stage in STAGES] == [1, 1, 2, 2]


# -------------------------------------------------------------------------------------------------------------- memory


def held(training):
    """dict of bytes that this rank keeps between steps: of weights, gradients and the optimizer's state."""
    store = training.store
    return {
        "weights": store.values.nbytes,
        "gradients": store.gradients.nbytes,
        "optimizer": sum(array.nbytes for array in training.optimizer.arrays.values()),
    }


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_parts_is_held_once_among_the_ranks(stage):
    """tests/benchmarks/zero_bytes.py measures it, in a model of 10 million parameters."""

    def after_a_step(ranks):
        training = make_training(ranks, ONE_PIECE, "float32", zero=stage, **SMALL_BUCKETS)
        one_step(training)
        return held(training), training.store.size

    ranks = on_ranks(4, after_a_step)
    size = ranks[0][1]
    repeats = {"weights": stage < 3, "gradients": stage < 2, "optimizer": stage < 1}
    for kind, factor in {"weights": 4, "gradients": 4, "optimizer": 8}.items():
        assert sum(bytes_of[kind] for bytes_of, _ in ranks) == size * factor * (4 if repeats[kind] else 1)
        assert max(bytes_of[kind] for bytes_of, _ in ranks) <= factor * (size if repeats[kind] else size // 4 + 64)


@pytest.mark.parametrize("stage", [1, 3])
def test_bytes_kept_between_steps_are_those_of_theory(stage):
    """Measured, so that a forgotten array shows, as the model's own weights would."""
    shape = dataclasses.replace(SHAPE, vocab_size=400, hidden_size=128, intermediate_size=512)
    measured, _ = persistent_bytes(2, shape, ONE_PIECE, zero=stage)
    in_theory = sum(bytes_in_theory(Decoder(shape).num_parameters(), 2, stage).values())
    assert abs(measured / in_theory - 1) < 0.05


def test_what_is_borrowed_is_given_back_and_bounded():
    def borrowed(ranks):
        training = make_training(ranks, CONFIG, zero=3, **SMALL_BUCKETS)
        store = training.store
        one_step(training)
        gc.collect()
        largest = max(bucket.size for bucket in store.buckets)
        opened = len(store.groups) + 1  # the embedding's is filled from both ends of the model
        blocks = 2 * max(unit.size for unit in store.blocks) + store.outside.size
        return store.borrowed.bytes, store.borrowed.peak, 8 * ((MOST_UNDER_WAY + 1 + opened) * largest + blocks)

    for now, peak, bound in on_ranks(2, borrowed):
        assert now == 0
        assert 0 < peak <= bound


def test_weights_that_nobody_has_gathered_are_nan_without_memory():
    def look(ranks):
        model = make_training(ranks, zero=3).model
        weight = model.blocks[0].attention.query.weight
        assert weight.shape == (16, 16)
        assert np.isnan(weight.data).all()
        assert set(weight.data.strides) == {0}
        with pytest.raises(ValueError, match="read-only"):
            weight.data[...] = 0

    on_ranks(2, look)


# ---------------------------------------------------------------------------------------- the model, seen from outside


@pytest.mark.parametrize("stage", STAGES)
def test_whole_weights_can_be_read_and_filled(stage):
    def fill(ranks):
        training = make_training(ranks, zero=stage)
        before = {name: array.copy() for name, array in training.store.weights().items()}
        with training.store.whole():
            for name, p in training.model.parameters().items():
                np.testing.assert_array_equal(p.data, before[name])
                p.data[...] = 2 * before[name]
        for name, array in training.store.weights().items():
            np.testing.assert_array_equal(array, 2 * before[name])

    on_ranks(2, fill)


@pytest.mark.parametrize("ranks", [Ranks, LateRanks])
def test_the_model_evaluates_and_generates_where_weights_are_parted(ranks):
    ids = np.arange(12).reshape(2, 6) % 17

    def results(training):
        model = training.model
        with ag.no_grad():
            loss, logits = model.loss(ids, ids).item(), model(ids).numpy()
        with training.store.gathered():
            texts = generate(model, [[1, 2, 3], [4]], max_new_tokens=6, temperature=0.8, seed=3)
        return loss, logits, texts

    loss, logits, texts = results(make_training())
    for there in on_ranks(2, lambda ranks: results(make_training(ranks, zero=3)), ranks):
        assert there[0] == loss
        np.testing.assert_array_equal(there[1], logits)
        assert there[2] == texts


@pytest.mark.parametrize("stage", STAGES)
def test_a_rebound_weight_is_noticed(stage):
    def rebind(ranks):
        training = make_training(ranks, ONE_PIECE, zero=stage)
        weight = training.model.blocks[1].feed_forward.up.weight
        weight.data = np.zeros(weight.shape)
        with pytest.raises(RuntimeError, match=r"blocks\.1\.feed_forward\.up\.weight\.data was rebound"):
            finish(training)

    on_ranks(2, rebind)


@pytest.mark.parametrize("stage", STAGES)
def test_alone_nothing_is_sent_and_afterwards_all_goes_on(stage):
    def look(ranks):
        training, other = (make_training(ranks, ONE_PIECE, zero=stage) for _ in range(2))
        with training.store.alone():
            count = len(ranks.messages)
            training.store.backward(training.model.loss(*training.batches.batch(0, 2)), np.ones(()))
            assert len(ranks.messages) == count
            assert all(p.grad is not None for p in training.store.parameters.values())
        ours, theirs = finish(training), finish(other)
        assert ours[0] == theirs[0]

    on_ranks(2, look)


def test_stage_3_wants_a_model_with_blocks():
    with pytest.raises(ValueError, match="a model with `blocks`"):
        PartedWeights(OneWeight(), None, ParallelConfig(zero=3), Ranks())


def test_a_gradient_after_its_bucket_is_an_error():
    """As in a model that uses a parameter earlier than where it stands."""

    class Crossed(TwoBlocks):
        def hidden(self, used):
            x = ag.recompute(self.blocks[1].forward, ag.Tensor(np.ones((3, 2))))
            return ag.recompute(self.blocks[0].forward, x) * self.scale

    def step(ranks):
        model = Crossed()
        store = PartedWeights(model, None, ParallelConfig(zero=3, reduce_bucket=64), ranks)
        with pytest.raises(RuntimeError, match="arrived after its bucket was sent"):
            store.backward(model.loss(()), np.ones(()))

    on_ranks(2, step)

"""The collectives of `autograd/ops/collective.py` on many ranks, differentiated as the one function that these compute.

What N ranks compute together is a function of all their inputs, and a central difference of it needs only the forward.
An array of it stands for what is on the ranks: see `Separate`, `Replicated` and `Parted`.
"""

import functools

import numpy as np
import pytest
from rank_threads import on_ranks

import autograd as ag
from autograd.testing import check_vjp
from tinyllm.data.batches import IGNORED, RandomBatches
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, accumulate, dropout_seeds
from tinyllm.training.parallel.config import ParallelConfig


class Separate:
    """N variables, entry r of the first axis on rank r."""

    def on_ranks(self, x, size):
        return list(x)

    def together(self, arrays):
        return np.stack(arrays)


class Replicated:
    """One variable, of which every rank has a copy."""

    def on_ranks(self, x, size):
        return [x.copy() for _ in range(size)]

    def together(self, arrays):
        for array in arrays:
            np.testing.assert_array_equal(array, arrays[0])
        return arrays[0]


class Parted:
    """One variable, cut along an axis."""

    def __init__(self, cuts=None, axis=0):
        self.cuts, self.axis = cuts, axis

    def on_ranks(self, x, size):
        return np.split(x, self.cuts[1:-1] if self.cuts else size, self.axis)

    def together(self, arrays):
        return np.concatenate(arrays, self.axis)


class Joint:
    """A function of Tensors that every rank computes, as one function of arrays.

    f(ranks, *tensors) -> Tensor. inputs: what each of its inputs is on the ranks; output: what its result is.
    """

    def __init__(self, f, inputs, output, size):
        self.f, self.inputs, self.output, self.size = f, inputs, output, size

    def leaves(self, arrays):
        """For each rank its inputs."""
        parts = [kind.on_ranks(x, self.size) for kind, x in zip(self.inputs, arrays, strict=True)]
        return [[ag.Tensor(part, requires_grad=True) for part in of_rank] for of_rank in zip(*parts, strict=True)]

    def forward(self, *arrays):
        leaves = self.leaves(arrays)
        return self.output.together(on_ranks(self.size, lambda ranks: self.f(ranks, *leaves[ranks.rank]).data))

    def vjp(self, dy, *arrays):
        leaves, dys = self.leaves(arrays), self.output.on_ranks(dy, self.size)

        def backward(ranks):
            self.f(ranks, *leaves[ranks.rank]).backward(dys[ranks.rank])
            return [leaf.grad for leaf in leaves[ranks.rank]]

        gradients = zip(*on_ranks(self.size, backward), strict=True)
        return [kind.together(of_ranks) for kind, of_ranks in zip(self.inputs, gradients, strict=True)]

    def check(self, *arrays):
        return check_vjp(self.forward, self.vjp, *arrays)


def normal(*shape):
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape)


CUTS = {1: (0, 5), 2: (0, 3, 5), 3: (0, 2, 2, 5)}  # rank 1 of three has nothing


def collective(name, size, uneven=False):
    """(the collective as a Joint, its input)."""
    options = {"cuts": CUTS[size]} if uneven else {}
    rows = 5 if uneven else 2 * size
    parted = Parted(CUTS[size] if uneven else None)
    kinds, shape = {
        "copy_to_ranks": ((Replicated(), Separate()), (2, 3)),
        "sum_over_ranks": ((Separate(), Replicated()), (size, 2, 3)),
        "gather_from_ranks": ((parted, Separate()), (rows, 2)),
        "scatter_sum_to_ranks": ((Separate(), parted), (size, rows, 2)),
    }[name]
    op = ag.PRIMITIVES[name]
    return Joint(lambda ranks, x: op(x, ranks=ranks, **options), kinds[:1], kinds[1], size), normal(*shape)


OPS = ["copy_to_ranks", "sum_over_ranks", "gather_from_ranks", "scatter_sum_to_ranks"]
ROWS = OPS[2:]
every_op = pytest.mark.parametrize("name", OPS)
every_size = pytest.mark.parametrize("size", [1, 2, 3])


@every_size
@pytest.mark.parametrize(("name", "uneven"), [*((name, False) for name in OPS), *((name, True) for name in ROWS)])
def test_the_gradient_is_that_of_what_all_ranks_compute_together(name, uneven, size):
    joint, x = collective(name, size, uneven)
    joint.check(x)


def test_what_they_compute():
    x = normal(3, 6, 2)
    parts = np.split(x.sum(0), 3)
    for name, given, expected in (
        ("copy_to_ranks", x[0], np.stack([x[0]] * 3)),
        ("sum_over_ranks", x, x.sum(0)),
        ("gather_from_ranks", x[0], np.stack([x[0]] * 3)),
        ("scatter_sum_to_ranks", x, np.concatenate(parts)),
    ):
        np.testing.assert_allclose(collective(name, 3)[0].forward(given), expected, rtol=1e-15)


def planted(monkeypatch, name, wrong):
    """Let an op compute its gradient as wrong(right gradient, dy, ranks)."""
    op = ag.PRIMITIVES[name]
    reference = op.reference

    @functools.wraps(reference)
    def body(x, *, ranks, cuts=None):
        y, vjp = reference(x, ranks=ranks, **({} if cuts is None else {"cuts": cuts}))
        return y, lambda dy: (wrong(vjp(dy)[0], dy, ranks),)

    monkeypatch.setattr(op, "reference", body)


@every_op
@every_size
def test_a_gradient_wrong_by_a_thousandth_is_caught(monkeypatch, name, size):
    joint, x = collective(name, size)
    planted(monkeypatch, name, lambda dx, dy, ranks: 1.001 * dx)
    with pytest.raises(AssertionError, match=r"the vjp says .* central difference"):
        joint.check(x)


def summed(dx, dy, ranks):
    ranks.all_reduce(total := dy.copy())
    return total


SILENT = {
    "copy_to_ranks": lambda dx, dy, ranks: dy,
    "gather_from_ranks": lambda dx, dy, ranks: np.split(dy, ranks.size)[ranks.rank],
    "scatter_sum_to_ranks": lambda dx, dy, ranks: np.concatenate([dy * (r == ranks.rank) for r in range(ranks.size)]),
    "sum_over_ranks": summed,
}
"""What each would be if its backward said nothing to the others; and for the one that has nothing to say, if it did."""


@every_op
@pytest.mark.parametrize("size", [2, 3])
def test_the_gradient_of_another_convention_is_caught(monkeypatch, name, size):
    joint, x = collective(name, size)
    planted(monkeypatch, name, SILENT[name])
    # On one rank there is one convention; with copies that differ, the comparison of copies already fails.
    with pytest.raises(AssertionError, match=r"the vjp says .* central difference|not equal"):
        joint.check(x)


def test_a_sum_for_separate_variables_is_an_all_reduce_both_ways():
    joint = Joint(
        lambda ranks, x: ag.copy_to_ranks(ag.sum_over_ranks(x, ranks=ranks), ranks=ranks), [Separate()], Separate(), 3
    )
    joint.check(normal(3, 2, 2))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_half_precision_is_summed_in_float32_and_rounded_once(dtype):
    """2048 + 1 is no float16; 2048 + 1 + 1 is."""
    numbers = np.array([2048, 1, 1], dtype)
    for total in on_ranks(3, lambda ranks: ag.sum_over_ranks(numbers[ranks.rank :][:1], ranks=ranks)):
        assert total.dtype == dtype
        assert total.data == 2050


@pytest.mark.parametrize(
    ("op", "rows", "options", "complaint"),
    [
        (ag.scatter_sum_to_ranks, (3, 3), {}, "3 rows cannot be shared equally by 2 ranks; say where with cuts="),
        (ag.scatter_sum_to_ranks, (4, 4), {"cuts": (0, 1, 3)}, "x has 4 rows, but by cuts .* the whole has 3"),
        (ag.gather_from_ranks, (1, 1), {"cuts": (0, 1, 3)}, "x has 1 rows, but by cuts .* this rank's part has 2"),
        (ag.gather_from_ranks, (1, 2), {"cuts": (0, 3)}, "cuts for 2 ranks are 3 rising numbers from 0 on"),
        (ag.gather_from_ranks, (1, 2), {"cuts": (1, 2, 4)}, "rising numbers from 0 on, not"),
        (ag.gather_from_ranks, (1, 2), {"cuts": (0, 4, 3)}, "rising numbers from 0 on, not"),
        (ag.gather_from_ranks, (None, None), {}, "takes an array with rows, not a single number"),
    ],
)
def test_rows_that_do_not_fit(op, rows, options, complaint):
    def ask(ranks):
        n = rows[ranks.rank]
        op(np.zeros(()) if n is None else np.zeros((n, 2)), ranks=ranks, **options)

    with pytest.raises(ValueError, match=complaint):
        on_ranks(2, ask)


# Megatron's feed-forward layer: every rank has some of the hidden units


def whole_layer(x, up, up_bias, down, down_bias):
    return ag.linear(ag.gelu(ag.linear(x, up, up_bias)), down, down_bias)


def split_layer(ranks, x, up, up_bias, down, down_bias):
    """x and the result replicated; rows of `up` and columns of `down` on each rank."""
    hidden = ag.gelu(ag.linear(ag.copy_to_ranks(x, ranks=ranks), up, up_bias))
    return ag.sum_over_ranks(ag.linear(hidden, down), ranks=ranks) + down_bias


def split_layer_and_tokens(ranks, x, up, up_bias, down, down_bias):
    """The same where between such layers every rank has some of the tokens (Korthikanti et al. 2022, section 4.2.2).

    What all ranks add to tokens of their own is one variable that each uses for something else.
    """
    hidden = ag.gelu(ag.linear(ag.gather_from_ranks(x, ranks=ranks), up, up_bias))
    mine = ag.scatter_sum_to_ranks(ag.linear(hidden, down), ranks=ranks)
    return mine + ag.copy_to_ranks(down_bias, ranks=ranks)


LAYERS = {
    split_layer: (Replicated(), Replicated()),
    split_layer_and_tokens: (Parted(), Parted()),
}


def layer_of(split, size):
    """(the split layer as a Joint, its inputs): 6 tokens, width 2, 6 hidden units."""
    x, y = LAYERS[split]
    kinds = (x, Parted(), Parted(), Parted(axis=1), Replicated())
    return Joint(split, kinds, y, size), [normal(6, 2), normal(6, 2), normal(6), normal(2, 6), normal(2)]


@every_size
@pytest.mark.parametrize("split", LAYERS)
def test_a_layer_split_over_ranks_is_the_layer(split, size):
    joint, arrays = layer_of(split, size)
    leaves = [ag.Tensor(x, requires_grad=True) for x in arrays]
    y = whole_layer(*leaves)
    dy = normal(*y.shape)
    y.backward(dy)
    np.testing.assert_allclose(joint.forward(*arrays), y.data, rtol=1e-12, atol=1e-12)
    for gradient, leaf in zip(joint.vjp(dy, *arrays), leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad, rtol=1e-12, atol=1e-12)
    joint.check(*arrays)


@pytest.mark.parametrize(
    ("split", "op"),
    [
        (split_layer, "copy_to_ranks"),
        (split_layer, "sum_over_ranks"),
        (split_layer_and_tokens, "gather_from_ranks"),
        (split_layer_and_tokens, "scatter_sum_to_ranks"),
        (split_layer_and_tokens, "copy_to_ranks"),
    ],
)
def test_a_split_layer_with_a_gradient_wrong_by_a_thousandth_is_caught(monkeypatch, split, op):
    joint, arrays = layer_of(split, 2)
    planted(monkeypatch, op, lambda dx, dy, ranks: 1.001 * dx)
    with pytest.raises(AssertionError, match=r"the vjp says .* central difference"):
        joint.check(*arrays)


# The ladder: data parallel training with the ops, and by the shared store

SHAPE = DecoderConfig(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=6, dropout=0.1, tie_word_embeddings=True,
)  # fmt: skip
CONFIG = TrainingConfig(batch_size=12)
TOKENS = np.arange(300) ** 2 % 17


def a_step(ranks, zero):
    """(Pretraining whose store has the gradient of a batch, a function of a model: the loss of this rank's share)."""
    model = Decoder(SHAPE, seed=0, dtype="float64")
    batches = RandomBatches(TOKENS, batch_size=CONFIG.batch_size, context=6, seed=0)
    training = Pretraining(model, batches, CONFIG, ParallelConfig(zero=zero), ranks)
    inputs, targets = next(batches)
    targets[0, 1:] = targets[5, :2] = IGNORED  # ranks have different numbers of targets
    share = ranks.share(len(inputs))
    accumulate(training, inputs, targets, 0, share)

    def loss_of_share(model):
        seeds = dropout_seeds(CONFIG.seed, np.arange(len(inputs), dtype=np.uint64))[share]
        loss = model.loss(inputs[share], targets[share], reduction="sum", dropout_seed=seeds)
        return loss / int((targets != IGNORED).sum())

    return training, loss_of_share


def replace_parameters(layer, replacement):
    """Let a model compute with replacement[parameter] in place of each parameter."""
    for name, value in list(vars(layer).items()):
        if isinstance(value, ag.Tensor):
            setattr(layer, name, replacement[value])
    for _, child in layer.children():
        replace_parameters(child, replacement)


@every_size
def test_weights_copied_to_ranks_get_the_gradient_that_the_shared_store_has(size):
    def compare(ranks):
        training, loss_of_share = a_step(ranks, zero=0)
        model = Decoder(SHAPE, seed=0, dtype="float64")
        parameters = model.parameters()
        replace_parameters(model, {p: ag.copy_to_ranks(p, ranks=ranks) for p in parameters.values()})
        loss_of_share(model).backward()
        for name, p in parameters.items():
            np.testing.assert_array_equal(p.grad, training.store.places[name].view(training.store.gradients), name)

    on_ranks(size, compare)


@pytest.mark.parametrize("size", [2, 3])
def test_weights_gathered_from_ranks_get_the_gradient_that_each_part_of_the_store_has(size):
    """What ZeRO's third stage does with a block at a time, here with the whole model."""

    def compare(ranks):
        training, loss_of_share = a_step(ranks, zero=1)
        store = training.store
        part = ag.Tensor(store.values[store.mine].copy(), requires_grad=True)
        whole = ag.gather_from_ranks(part, ranks=ranks, cuts=store.cuts)
        model = Decoder(SHAPE, seed=1, dtype="float64")  # whose own weights are not used
        replace_parameters(model, {p: store.places[name].view(whole) for name, p in model.parameters().items()})
        loss_of_share(model).backward()
        np.testing.assert_array_equal(part.grad, store.gradients[store.mine])

    on_ranks(size, compare)

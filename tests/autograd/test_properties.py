"""Properties over drawn shapes, layouts, dtypes, seeds and regimes: what no table of cases thought of."""

import os

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import autograd as ag
from autograd.engine import Tensor
from autograd.testing import arrays, check_gradient, check_primitive, sample_array

SMALL = array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)
WITH_EMPTY = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
DTYPES = ["float32", "float64"]
SMOOTH = ["normal", "tiny"]  # regimes without kinks in which a central difference is exact


EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "30"))  # the same ones each time; more for a long search


def drawn(*strategies, **named):
    quick = settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 30)
    return lambda test: quick(given(*strategies, **named)(test))


@st.composite
def broadcast(draw, count, min_side=1, **of_arrays):
    """Arrays of drawn shapes that broadcast against each other."""
    shapes = draw(
        mutually_broadcastable_shapes(num_shapes=count, max_dims=3, min_side=min_side, max_side=4)
    ).input_shapes
    return [draw(arrays(shape=shape, **of_arrays)) for shape in shapes]


@st.composite
def with_axis(draw, strategy, several=False):
    """An array, and an axis of it (or None, or several)."""
    x = draw(strategy)
    axes = st.integers(-x.ndim, x.ndim - 1)
    if several:
        many = st.lists(st.integers(0, x.ndim - 1), unique=True, min_size=1, max_size=x.ndim).map(tuple)
        axes = axes | st.none() | many
    return x, draw(axes)


@pytest.mark.parametrize("op", [ag.add, ag.subtract, ag.multiply], ids=repr)
@drawn(inputs=broadcast(2, min_side=0, dtype=DTYPES, regime=[*SMOOTH, "ties"]))
def test_elementwise_broadcasting(op, inputs):
    check_primitive(op, *inputs)


@pytest.mark.parametrize("op", [ag.divide, ag.power], ids=repr)
@drawn(inputs=broadcast(2, regime="normal"))
def test_elementwise_broadcasting_off_zero(op, inputs):
    a, b = (np.abs(x) + 0.5 for x in inputs)
    check_primitive(op, a, b)


@drawn(inputs=broadcast(3, dtype="float64", regime="normal"))
def test_where_broadcasts_three_ways(inputs):
    condition, a, b = inputs
    check_primitive(ag.where, condition > 0, a, b)


@drawn(inputs=broadcast(2, regime="ties"))
def test_ties_share_the_whole_gradient(inputs):
    for op in (ag.maximum, ag.minimum):
        a, b = (Tensor(x, requires_grad=True) for x in inputs)
        y = op(a, b)
        y.backward(np.ones(y.shape))
        assert a.grad.sum() + b.grad.sum() == y.size


@drawn(arrays(shape=SMALL, regime="ties"), st.booleans())
def test_equal_maxima_share_the_whole_gradient(x, keepdims):
    for axis in (None, *range(x.ndim)):
        leaf = Tensor(x, requires_grad=True)
        y = ag.max(leaf, axis=axis, keepdims=keepdims)
        y.backward(np.ones(y.shape))
        np.testing.assert_allclose(leaf.grad.sum(axis), np.ones(x.max(axis).shape), rtol=1e-15)


@pytest.mark.parametrize("op", [ag.sum, ag.mean], ids=repr)
@drawn(x_axis=with_axis(arrays(shape=SMALL, dtype=DTYPES, regime=SMOOTH), several=True), keepdims=st.booleans())
def test_reductions(op, x_axis, keepdims):
    x, axis = x_axis
    check_gradient(lambda x: op(x, axis=axis, keepdims=keepdims), x)
    expected = getattr(np, op.name)(x, axis=axis, keepdims=keepdims)
    np.testing.assert_array_equal(op(x, axis=axis, keepdims=keepdims).data, expected)


@drawn(with_axis(arrays(shape=WITH_EMPTY, dtype=DTYPES, regime=SMOOTH)))
def test_cumsum(x_axis):
    x, axis = x_axis
    check_primitive(ag.cumsum, x, axis=axis)


@drawn(st.data())
def test_matmul_broadcasts_batches(data):
    M, K, N = (data.draw(st.integers(0, 4)) for _ in range(3))
    batches = data.draw(mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=3)).input_shapes
    a = data.draw(arrays(shape=(*batches[0], M, K), regime=SMOOTH))
    b = data.draw(arrays(shape=(*batches[1], K, N), regime=SMOOTH))
    check_gradient(ag.matmul, a, b)
    np.testing.assert_allclose(ag.matmul(a, b).data, a @ b, rtol=1e-15)


@drawn(st.data())
def test_linear_is_matmul_with_a_transposed_weight(data):
    rows = data.draw(array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    n_in, n_out = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    x, w, b = (data.draw(arrays(shape=shape, regime=SMOOTH)) for shape in ((*rows, n_in), (n_out, n_in), (n_out,)))
    check_gradient(ag.linear, x, w, b)
    np.testing.assert_allclose(ag.linear(x, w, b).data, x @ w.T + b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("op", [ag.softmax, ag.log_softmax, ag.logsumexp], ids=repr)
@drawn(x_axis=with_axis(arrays(shape=SMALL, dtype=DTYPES, regime=[*SMOOTH, "ties"])))
def test_softmax_family(op, x_axis):
    x, axis = x_axis
    check_primitive(op, x, axis=axis)


@drawn(with_axis(arrays(shape=SMALL, dtype=["float16", "float32", "float64"])))
def test_softmax_is_a_distribution_in_every_regime(x_axis):
    x, axis = x_axis
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        p = ag.softmax(x, axis=axis).data
        log_p = ag.log_softmax(x, axis=axis).data
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis, dtype=np.float64), 1, rtol=4 * np.finfo(x.dtype).eps)
    assert np.isfinite(log_p).all()
    shifted = ag.softmax(x.astype(np.float64) + 7, axis=axis).data
    np.testing.assert_allclose(shifted, ag.softmax(x.astype(np.float64), axis=axis).data, rtol=1e-9, atol=1e-300)


@drawn(arrays(shape=array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5), regime="normal"), st.integers(0, 99))
def test_norms(x, seed):
    weight, bias = sample_array(x.shape[-1:], seed=seed), sample_array(x.shape[-1:], seed=seed + 1)
    check_gradient(ag.layer_norm, x, weight, bias)
    check_gradient(ag.rms_norm, x, weight)


@drawn(arrays(shape=array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5), dtype=["float16", "float32"]))
def test_norms_are_finite_in_every_regime(x):
    ones = np.ones(x.shape[-1], x.dtype)
    for op in (ag.layer_norm, ag.rms_norm):
        leaf = Tensor(x, requires_grad=True)
        y = op(leaf, ones)
        y.backward(np.ones(x.shape))
        assert np.isfinite(y.data).all()
        assert np.isfinite(leaf.grad).all()


@drawn(st.data())
def test_embedding_and_index_add_are_adjoint(data):
    """Σ dy · W[ids] = Σ W · (0 with dy added at ids), whatever the ids."""
    V, C = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    ids = np.array(data.draw(st.lists(st.integers(0, V - 1), max_size=8)), dtype=int)
    w, dy = data.draw(arrays(shape=(V, C))), data.draw(arrays(shape=(len(ids), C)))
    looked_up, added = ag.embedding(w, ids).data, ag.index_add(np.zeros((V, C)), ids, dy).data
    np.testing.assert_allclose((dy * looked_up).sum(), (w * added).sum(), rtol=1e-9, atol=1e-9 * abs(w).max() * 1e3)
    leaf = Tensor(w, requires_grad=True)
    ag.embedding(leaf, ids).backward(dy)
    np.testing.assert_array_equal(leaf.grad, added)


@drawn(st.data())
def test_shapes_move_elements_and_bring_gradients_back(data):
    x = data.draw(arrays(shape=SMALL, regime="normal"))
    axes = tuple(data.draw(st.permutations(range(x.ndim))))
    index = tuple(data.draw(st.slices(n)) for n in x.shape)
    widths = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in x.shape]
    check_gradient(lambda x: ag.transpose(x, axes=axes)[...], x)
    check_gradient(lambda x: x[index], x)
    check_gradient(lambda x: ag.pad(x, widths=widths, value=1.0), x)
    check_gradient(lambda x: ag.concatenate(x, x * 2, axis=axes[0]), x)
    check_gradient(lambda x: ag.stack(x, x * 2, axis=axes[0]).reshape(-1), x)


@drawn(st.data())
def test_attention_of_drawn_shapes_and_masks(data):
    B, G, share, T, D = (data.draw(st.integers(1, 2)) for _ in range(5))
    S = T + data.draw(st.integers(0, 3))
    window = data.draw(st.none() | st.integers(1, S))
    ids = data.draw(st.none() | st.lists(st.integers(-1, 1), min_size=B * S, max_size=B * S))
    q, k, v = (
        data.draw(arrays(shape=shape, regime="normal")) for shape in ((B, G * share, T, D), (B, G, S, D), (B, G, S, D))
    )
    check_primitive(
        ag.attention, q, k, v, causal=data.draw(st.booleans()), window=window,
        segments=None if ids is None else np.array(ids).reshape(B, S),
    )  # fmt: skip


@drawn(st.lists(st.sampled_from(["add", "multiply", "tanh", "share"]), min_size=1, max_size=12), st.integers(0, 999))
def test_graphs_of_any_form(steps, seed):
    """Two leaves, and steps that combine what there is so far: diamonds, chains, shared trunks."""

    def graph(a, b):
        values = [a, b]
        rng = np.random.default_rng(seed)
        for step in steps:
            x, y = values[rng.integers(len(values))], values[rng.integers(len(values))]
            values.append({"add": x + y, "multiply": x * y * 0.5, "tanh": ag.tanh(x), "share": (x + x) + y}[step])
        total = values[-1]
        for value in values[:-1]:
            total = total + value * 0.1
        return total

    check_gradient(graph, sample_array((2, 3), seed=seed) * 0.5, sample_array((3,), seed=seed + 1) * 0.5)

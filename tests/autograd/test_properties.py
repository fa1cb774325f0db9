"""Properties over drawn inputs that are not about one op's gradient; those are proven in `test_registry.py`."""

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra.numpy import array_shapes
from primitive_strategies import STRATEGIES, Floats, drawn

import autograd as ag
from autograd.engine import Tensor
from autograd.testing import arrays, check_gradient, sample_array

SHAPES = array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)


@drawn(STRATEGIES["linear"](Floats()))
def test_linear_is_matmul_with_a_transposed_weight(case):
    x, w, *rest = case.inputs
    b = 0 if not rest or rest[0] is None else rest[0]
    np.testing.assert_allclose(ag.linear(*case.inputs).data, x @ w.T + b, rtol=1e-12, atol=1e-13)


@drawn(STRATEGIES["linear_cross_entropy"](Floats()), st.integers(0, 99))
def test_linear_cross_entropy_is_the_cross_entropy_of_linear(case, seed):
    x, weight, targets = case.inputs
    options = {name: value for name, value in case.options.items() if name != "chunk"}
    whole, pieces = ([Tensor(a, requires_grad=True) for a in (x, weight)] for _ in range(2))
    losses = [
        ag.cross_entropy(ag.linear(*whole), targets, **options),
        ag.linear_cross_entropy(*pieces, targets, **case.options),
    ]
    for loss in losses:
        loss.backward(np.random.default_rng(seed).standard_normal(loss.shape))
    for a, b in zip(
        [losses[1].data, *(leaf.grad for leaf in pieces)], [losses[0].data, *(leaf.grad for leaf in whole)], strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13 * (1 + abs(b).max(initial=0)))


@drawn(arrays(shape=SHAPES, dtype=["float16", "float32", "float64"]), st.data())
def test_softmax_is_a_distribution_in_every_regime(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        p = ag.softmax(x, axis=axis).data
        log_p = ag.log_softmax(x, axis=axis).data
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis, dtype=np.float64), 1, rtol=4 * np.finfo(x.dtype).eps)
    assert np.isfinite(log_p).all()
    shifted = ag.softmax(x.astype(np.float64) + 7, axis=axis).data
    np.testing.assert_allclose(shifted, ag.softmax(x.astype(np.float64), axis=axis).data, rtol=1e-9, atol=1e-300)


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

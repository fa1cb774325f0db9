"""Recomputation is only a matter of memory: every gradient is what it would have been."""

import tracemalloc

import numpy as np
import pytest

import autograd as ag
from autograd.engine import Tensor


def parameters(seed=0, n=3):
    rng = np.random.default_rng(seed)
    return [Tensor(rng.standard_normal((4, 4)), requires_grad=True) for _ in range(n)]


def gradients_of(run, *leaves):
    """Gradients and arrivals of a computation, run afresh."""
    for p in leaves:
        p.grad = None
    arrived = []
    y = run()
    y.backward(np.linspace(-1, 1, y.size).reshape(y.shape), on_leaf=arrived.append)
    return [None if p.grad is None else p.grad.copy() for p in leaves], arrived


def assert_same_as_plain(build, *leaves):
    """`build(checkpoint)` calls `checkpoint(f, *inputs)` where it may be recomputed."""
    plain, plain_arrived = gradients_of(lambda: build(lambda f, *xs: f(*xs)), *leaves)
    again, arrived = gradients_of(lambda: build(ag.recompute), *leaves)
    for a, b in zip(again, plain, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)
    assert sorted(map(id, arrived)) == sorted(map(id, plain_arrived))


def test_equals_plain_and_saves_only_the_inputs():
    x, w, v = parameters()
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda x: ag.tanh(x @ w) @ v, x * 2), x, w, v)


def test_an_input_that_needs_no_gradient_leaves_the_weights_theirs():
    x, w, v = parameters()
    frozen = x.detach()
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda x: ag.tanh(x @ w) @ v, frozen), w, v)


def test_a_leaf_used_inside_and_outside_arrives_once_with_everything():
    x, w, v = parameters()
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda x: ag.tanh(x @ w) @ v, x @ w) @ w, x, w, v)
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda x: (x @ w) * w, w) + w, w)


def test_a_leaf_in_two_blocks_arrives_once():
    x, w, _ = parameters()

    def build(checkpoint):
        y = checkpoint(lambda x: ag.tanh(x @ w), x)
        return checkpoint(lambda y: ag.tanh(y @ w), y)

    assert_same_as_plain(build, x, w)


def test_leaves_with_buffers_receive_in_their_buffers():
    x, w, v = parameters()
    for p in (w, v):
        p.buffer = np.full((4, 4), np.nan)

    def build(checkpoint):
        return ag.linear(checkpoint(lambda x: ag.linear(ag.tanh(ag.linear(x, w)), v), x), w)

    assert_same_as_plain(build, x, w, v)
    for p in (w, v):
        assert p.grad is p.buffer


def test_gradients_add_to_those_of_an_earlier_backward():
    x, w, _ = parameters()
    for _ in range(2):
        ag.recompute(lambda x: x @ w, x).sum().backward()
    doubled = w.grad.copy()
    w.grad = None
    (x @ w).sum().backward()
    np.testing.assert_allclose(doubled, 2 * w.grad)


def test_blocks_nest():
    x, w, v = parameters()

    def build(checkpoint):
        def inner(x):
            return ag.tanh(x @ w)

        def outer(x):
            return checkpoint(inner, checkpoint(inner, x) @ v) * x

        return checkpoint(outer, x) @ w

    assert_same_as_plain(build, x, w, v)


def test_randomness_from_a_seed_repeats_itself():
    x, w, _ = parameters()
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda x: ag.dropout(x @ w, rate=0.5, seed=11), x), x, w)


def test_arguments_that_are_no_tensors_and_integer_tensors_pass_through():
    _, w, _ = parameters()
    ids = Tensor(np.array([1, 3, 1]))
    assert_same_as_plain(lambda checkpoint: checkpoint(lambda i, k: ag.embedding(w, i) * k, ids, 3.0), w)


def test_an_input_that_the_block_does_not_use_has_gradient_zero():
    x, w, _ = parameters()
    ag.recompute(lambda x, unused: x @ w, x, w * 2).sum().backward()
    assert ag.recompute(lambda x: x + 1, x.detach()).node is None  # and where nothing wants one, nothing is recorded
    unused = Tensor(np.ones(2), requires_grad=True)
    ag.recompute(lambda x, unused: x * 1, x, unused).sum().backward()
    assert unused.grad.tolist() == [0, 0]


def test_a_leaf_whose_result_is_thrown_away_receives_nothing():
    x, w, _ = parameters()
    ag.recompute(lambda x: (x @ w, x * 1)[1], x.detach()).sum().backward()
    assert w.grad is None


def test_a_result_from_outside_is_refused():
    x, w, _ = parameters()
    outside = w * 2
    with pytest.raises(ValueError, match=r"recompute: matmul uses a tensor computed outside.*pass it to recompute"):
        ag.recompute(lambda x: x @ outside, x)
    assert ag.recompute(lambda x, outside: x @ outside, x, outside).requires_grad


def test_a_block_that_does_not_repeat_itself_is_an_error():
    x, w, v = parameters()
    weights = iter([w, v])
    y = ag.recompute(lambda x: x @ next(weights), x)
    with pytest.raises(RuntimeError, match="it must repeat itself"):
        y.backward(np.ones((4, 4)))


def test_under_no_grad_it_is_a_plain_call():
    x, w, _ = parameters()
    with ag.no_grad():
        assert ag.recompute(lambda x: x @ w, x).node is None


def test_backward_reruns_with_the_forwards_kernels_path_and_mode():
    x, w, _ = parameters()
    seen = []

    def block(x):
        context = ag.context.context
        seen.append((context.kernels, context.path, context.recording))
        return x @ w

    with ag.context.context.set(kernels=("toy",)), ag.scope("blocks.3"):
        y = ag.recompute(block, x)
    with ag.no_grad():
        y.backward(np.ones((4, 4)))
    assert seen == [(("toy",), ("blocks.3",), False), (("toy",), ("blocks.3",), True)]


def test_walking_twice_is_an_error():
    x, w, _ = parameters()
    y = ag.recompute(lambda x: x @ w, x)
    y.backward(np.ones((4, 4)))
    with pytest.raises(RuntimeError, match=r"already \(at recompute\(<lambda>\)\)"):
        y.backward(np.ones((4, 4)))


def test_it_saves_memory():
    x = Tensor(np.ones(2**17), requires_grad=True)  # 1 MB

    def block(x):
        for _ in range(10):
            x = ag.tanh(x)
        return x

    def kept(call):
        tracemalloc.start()
        y = call(block, x)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size, y

    assert kept(lambda f, x: f(x))[0] > 9.9 * 2**20
    assert kept(ag.recompute)[0] < 1.1 * 2**20

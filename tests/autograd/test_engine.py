"""The walk: order, ownership, memory, leaves and their buffers, modes and threads."""

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import autograd as ag
from autograd.context import context
from autograd.engine import Tensor

MB = 2**20


def leaf(*values, buffer=False):
    x = Tensor(np.array(values, dtype=np.float64), requires_grad=True)
    if buffer:
        x.buffer = np.full(x.shape, np.nan)
    return x


# Sums over paths


def test_one_leaf_used_twice_receives_both_gradients():
    x = leaf(3.0)
    (x * x + x).backward()
    assert x.grad == 7


def test_a_diamond_adds_both_paths():
    x = leaf(2.0)
    y = x * x
    (ag.exp(y * 0.5) + y * y).backward()
    np.testing.assert_allclose(x.grad, np.exp(2) * 2 + 4 * 8)


def test_a_leaf_in_many_places():
    x = leaf(1.0, 2.0)
    total = x
    for n in range(50):
        total = total + n * x
    total.backward(np.ones(2))
    assert x.grad.tolist() == [1226, 1226]


def test_add_hands_one_array_to_two_parents_and_neither_is_corrupted():
    a, b = leaf(1.0), leaf(2.0)
    ((a + b) + a).backward()
    assert (a.grad, b.grad) == (2, 1)
    x, y = leaf(1.0), leaf(2.0)
    u, v = x * 1, y * 1
    (((u + v) + u) + u).backward()  # the same through intermediate results, which are summed, not copied
    assert (x.grad, y.grad) == (3, 1)


def test_three_uses_of_a_result_whose_gradient_arrives_borrowed():
    x = leaf(1.0, 1.0)
    y = x * 1
    seed = np.array([1.0, 10.0])
    (y + y + y).backward(seed)
    assert x.grad.tolist() == [3, 30]
    assert seed.tolist() == [1, 10]


def test_gradients_add_up_over_two_graphs():
    x = leaf(1.0, 2.0)
    (x * 3).sum().backward()
    first = x.grad
    (x * 4).sum().backward()
    assert x.grad.tolist() == [7, 7]
    assert x.grad is first


def test_backward_of_a_leaf_itself():
    x = leaf(5.0, 6.0)
    arrived = []
    x.backward(np.array([1.0, 2.0]), on_leaf=arrived.append)
    assert x.grad.tolist() == [1, 2]
    assert arrived == [x]


# Ownership


def test_a_leaf_never_keeps_a_borrowed_array():
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = np.ones(2)
    (x + y).backward(seed)
    assert not np.shares_memory(x.grad, seed)
    assert not np.shares_memory(x.grad, y.grad)
    z = leaf(1.0, 2.0)
    z.backward(seed)
    assert not np.shares_memory(z.grad, seed)
    w = leaf(1.0, 2.0)
    ag.sum(w).backward()  # its pullback returns a read-only view of one number
    w.grad += 1
    assert w.grad.tolist() == [2, 2]


# Walking twice


def test_a_graph_can_be_walked_once():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(RuntimeError, match=r"through this graph already \(at multiply\).*compute the loss again"):
        y.backward()
    assert x.grad == 4


def test_a_shared_trunk_can_be_walked_once_and_nothing_is_half_added():
    x, w = leaf(2.0), leaf(5.0)
    trunk = ag.exp(x)
    first, second = trunk * 2, trunk * w
    first.backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match=r"already \(at exp\)"):
        second.backward()
    assert x.grad == before
    assert w.grad is None


# Depth and memory


def test_a_chain_of_20_000_ops_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad == 1


def test_dropping_a_deep_graph_without_walking_it_needs_no_recursion():
    y = leaf(1.0)
    for _ in range(20_000):
        y = y * 1.001
    del y
    gc.collect()


def test_100_adds_of_8_megabytes_keep_about_one_array():
    x = Tensor(np.ones(MB), requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(100):
        y = y + 1.0
    kept, peak = tracemalloc.get_traced_memory()
    assert kept < 1.1 * 8 * MB
    assert peak < 2.2 * 8 * MB  # an op's input and its result
    tracemalloc.reset_peak()
    seed = np.ones(MB)
    y.backward(seed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3.2 * 8 * MB  # the result, the seed, the leaf's gradient


def test_backward_of_a_chain_that_saves_has_no_peak_of_its_own():
    x = Tensor(np.ones(MB // 8), requires_grad=True)
    tracemalloc.start()
    y = x
    for _ in range(20):
        y = ag.exp(y * 0.01)
    saved, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    y.backward(np.ones(MB // 8))
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert saved > 19 * MB
    assert peak < saved + 5 * MB
    assert after < 3.2 * MB  # the result and the leaf's gradient


def test_a_gradient_is_dropped_when_its_pullback_has_run():
    x = Tensor(np.ones(MB // 8), requires_grad=True)
    y = (x * 2.0) * 2.0
    seed = np.ones(MB // 8)
    tracemalloc.start()
    y.backward(seed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * MB  # of the last pullback its result and the leaf's copy, no longer what it was given


def test_saved_arrays_are_freed_while_the_walk_goes_on():
    kept, alive = [], []

    @ag.primitive
    def saves(x):
        saved = x + 0
        kept.append(weakref.ref(saved))
        y = x + 1

        def vjp(dy):
            alive.append(sum(ref() is not None for ref in kept))
            return (dy * (saved * 0 + 1),)

        return y, vjp

    x = leaf(1.0)
    y = x
    for _ in range(5):
        y = saves(y)
    y.backward()
    assert alive == [5, 4, 3, 2, 1]
    assert [ref() for ref in kept] == [None] * 5


def test_a_graph_has_no_reference_cycles():
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = ag.softmax(ag.linear(x.reshape(1, 2), Tensor(np.ones((3, 2)), requires_grad=True)))
        dropped = weakref.ref(y.node.vjp)
        del y
        assert dropped() is None
    finally:
        gc.enable()


def test_the_closure_of_a_frozen_input_is_dropped_with_what_it_saved():
    x, w = Tensor(np.ones((4, 2))), leaf(1.0, 2.0)
    y = x * w  # dx would need w, dw needs x
    assert y.node.vjp[0] is None
    assert y.node.vjp[1] is not None
    weight = Tensor(np.ones((3, 2)))
    y = ag.linear(Tensor(np.ones((4, 2)), requires_grad=True) * 1, weight)
    assert [f is None for f in y.node.vjp] == [False, True, True]


# Leaves that arrive


def test_on_leaf_fires_once_per_leaf_when_its_last_gradient_has_arrived():
    a, b, c = leaf(1.0), leaf(2.0), leaf(3.0)
    arrived = []
    y = (a * b) * a  # b's only gradient comes before a's last one
    y = y * c

    def on_leaf(x):
        arrived.append((x, x.grad.item()))

    y.backward(on_leaf=on_leaf)
    assert [x for x, _ in arrived] == [c, a, b]
    assert dict(arrived) == {a: 2 * 1 * 2 * 3, b: 3, c: 2}


def test_on_leaf_fires_in_the_reverse_order_of_use():
    weights = [leaf(float(n)) for n in range(1, 6)]
    y = leaf(1.0).detach()
    for w in weights:
        y = y * w
    arrived = []
    y.backward(on_leaf=arrived.append)
    assert arrived == weights[::-1]


def test_on_leaf_fires_while_the_walk_goes_on():
    first, last = leaf(1.0), leaf(2.0)
    y = ag.exp(first) * last
    seen = []
    y.backward(on_leaf=lambda x: seen.append(first.grad is None))
    assert seen == [True, False]


# Buffers


def test_the_first_arrival_is_written_into_the_buffer_and_later_ones_added():
    x = leaf(1.0, 2.0, buffer=True)
    buffer = x.buffer
    (x * 3 + x * 4).backward(np.ones(2))
    assert x.grad is buffer
    assert buffer.tolist() == [7, 7]
    (x * 10).backward(np.ones(2))
    assert x.grad is buffer
    assert buffer.tolist() == [17, 17]
    x.grad = None  # as an optimizer leaves it: what lies in the buffer is old
    (x * 5).backward(np.ones(2))
    assert x.grad is buffer
    assert buffer.tolist() == [5, 5]


def spied_on(reference):
    """The op, and a list of (`out`, result) of each run of a pullback that takes `out`."""
    seen = []

    def body(*inputs, **options):
        y, vjp = reference(*inputs, **options)
        return y, tuple(spy(f, seen) if f and "out" in f.__code__.co_varnames else f for f in vjp)

    return body, seen


def spy(f, seen):
    def vjp(dy, out=None):
        dx = f(dy, out=out)
        seen.append((out, dx))
        return dx

    return vjp


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("op", "shape", "inputs"),
    [
        (ag.linear, (3, 2), lambda w: (np.ones((4, 2), w.dtype), w)),
        (ag.embedding, (5, 2), lambda w: (w, np.array([4, 1, 1]))),
    ],
)
def test_the_gradient_of_a_large_weight_is_computed_in_its_buffer(monkeypatch, op, shape, inputs, dtype):
    plain = Tensor(np.ones(shape, dtype), requires_grad=True)
    op(*inputs(plain)).sum().backward()
    w = Tensor(np.ones(shape, dtype), requires_grad=True)
    w.buffer = np.full(shape, np.nan, dtype)
    body, seen = spied_on(op.reference)
    monkeypatch.setattr(op, "reference", body)
    op(*inputs(w)).sum().backward()
    [(out, dx)] = seen
    assert out is w.buffer
    assert dx is w.buffer
    assert w.grad is w.buffer
    np.testing.assert_array_equal(w.grad, plain.grad)
    op(*inputs(w)).sum().backward()  # a second gradient is added, not written over the first
    assert seen[1][0] is None
    np.testing.assert_array_equal(w.grad, 2 * plain.grad)


def test_a_leaf_that_is_two_arguments_of_one_op_has_one_buffer_and_two_gradients():
    rng = np.random.default_rng(0)
    values, dy = rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    for op in (ag.linear, ag.matmul, ag.multiply):
        plain, buffered = (Tensor(values, requires_grad=True) for _ in range(2))
        buffered.buffer = np.zeros((3, 3))
        op(plain, plain).backward(dy)
        op(buffered, buffered).backward(dy)
        np.testing.assert_allclose(buffered.grad, plain.grad)


def test_a_tied_weight_sums_the_head_and_the_embedding_in_its_buffer():
    rng = np.random.default_rng(0)
    values, ids = rng.standard_normal((5, 3)), np.array([1, 1, 4])
    gradients = []
    for buffer in (None, np.full((5, 3), np.nan)):
        w = Tensor(values, requires_grad=True)
        w.buffer = buffer
        ag.cross_entropy(ag.linear(ag.embedding(w, ids), w), ids).backward()
        gradients.append(w.grad)
    np.testing.assert_allclose(*gradients)


# Modes


def test_no_grad_records_nothing_and_saves_nothing():
    x = leaf(1.0)
    with ag.no_grad():
        y = ag.exp(x)
        assert ag.kernels_used() is not None
    assert y.node is None
    assert not y.requires_grad
    assert ag.exp(x).requires_grad


def test_a_mode_may_decorate_a_function_that_calls_itself():
    x, seen = leaf(1.0), []

    @ag.no_grad()
    def down(n):
        seen.append(ag.exp(x).requires_grad)
        return n and down(n - 1)

    down(2)
    assert seen == [False] * 3
    assert ag.exp(x).requires_grad


def test_modes_end_with_their_block_also_by_an_exception():
    with pytest.raises(KeyError), ag.no_grad(), ag.scope("block"):
        raise KeyError
    assert context.recording
    assert context.path == ()


def test_needs_tells_a_body_what_is_wanted():
    seen = []

    @ag.primitive
    def look(a, b, c=None):
        seen.append(ag.needs())
        y = a + b

        def vjp(dy):
            return dy, dy, None

        return y, vjp

    look(leaf(1.0), np.ones(1))
    look(np.ones(1), leaf(1.0), c=leaf(2.0))
    with ag.no_grad():
        look(leaf(1.0), leaf(1.0))
    look(leaf(1.0).detach(), Tensor(np.ones(1)))
    assert seen == [(True, False, False), (False, True, True), (False,) * 3, (False,) * 3]


def test_modes_hold_in_their_own_thread_only():
    x, results = leaf(1.0), []
    inside, done = threading.Event(), threading.Event()

    def trainer():
        inside.wait()
        results.extend([ag.exp(x).requires_grad, context.path, context.kernels, context.collecting])
        done.set()

    thread = threading.Thread(target=trainer)
    thread.start()
    with ag.no_grad(), ag.scope("server"), context.set(kernels=("toy",), collecting={}):
        inside.set()
        done.wait()
        assert not ag.exp(x.detach()).requires_grad
    thread.join()
    assert results == [True, (), (), None]


def test_what_another_thread_sets_stays_there():
    def server():
        context.set(recording=False).__enter__()  # and never leaves

    thread = threading.Thread(target=server)
    thread.start()
    thread.join()
    assert ag.exp(leaf(1.0)).requires_grad


# Arguments by name and by default


def test_arguments_given_by_name_or_left_out_are_differentiated_in_their_places():
    x, w, b = leaf(1.0, 2.0), Tensor(np.ones((3, 2)), requires_grad=True), leaf(0.0, 0.0, 0.0)
    for call in (
        lambda: ag.linear(x, w, b),
        lambda: ag.linear(x, weight=w, bias=b),
        lambda: ag.linear(x, bias=b, weight=w),
        lambda: ag.linear(bias=b, x=x, weight=w),
    ):
        x.grad = w.grad = b.grad = None
        call().backward(np.array([1.0, 10.0, 100.0]))
        assert x.grad.tolist() == [111, 111]
        assert w.grad.tolist() == [[1, 2], [10, 20], [100, 200]]
        assert b.grad.tolist() == [1, 10, 100]
    x.grad = w.grad = None
    ag.linear(x, w).backward(np.array([1.0, 10.0, 100.0]))
    assert x.grad.tolist() == [111, 111]
    assert ag.layer_norm(x, w.data[0], eps=0.1, bias=None).node.parents[1:] == (None, None)


def test_a_gradient_has_the_dtype_of_its_input_when_dtypes_mix():
    x, y = Tensor(np.ones(3, np.float32), requires_grad=True), leaf(1.0, 2.0, 3.0)
    for op in (ag.add, ag.subtract, ag.multiply, ag.divide, ag.power, ag.maximum, ag.minimum):
        x.grad = y.grad = None
        op(x, y).sum().backward()
        assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_broadcast_half_precision_gradients_are_summed_in_float32():
    b = Tensor(np.zeros(3, np.float16), requires_grad=True)
    (b + np.zeros((4096, 3), np.float16)).backward(np.ones((4096, 3), np.float16))
    assert b.grad.tolist() == [4096] * 3  # float16 alone stops counting at 2048


def test_backward_is_deterministic_to_the_bit():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((8, 8)).astype(np.float32)
    gradients = []
    for _ in range(2):
        x = Tensor(values, requires_grad=True)
        y = ag.softmax(x @ x) + ag.gelu(x) * ag.tanh(x @ x)
        (y * y).sum().backward()
        gradients.append(x.grad.tobytes())
    assert gradients[0] == gradients[1]


def test_an_op_of_the_same_name_from_elsewhere_takes_nothing_from_the_registry():
    ours = ag.PRIMITIVES["softmax"]

    @ag.primitive
    def softmax(x):
        y = x

        def vjp(dy):
            return (dy,)

        return y, vjp

    assert ag.PRIMITIVES["softmax"] is ours
    assert ag.PRIMITIVES[f"{__name__}.softmax"] is softmax


def test_gradients_of_joined_arrays_have_the_dtype_of_each():
    for op in (ag.concatenate, ag.stack):
        a, b = Tensor(np.ones(2, np.float32), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
        y = op(a, b)
        assert y.dtype == np.float64
        y.backward(np.ones(y.shape))
        assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)

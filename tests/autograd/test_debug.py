"""Finding the broken op: the first NaN, and the array that was overwritten."""

import gc
import inspect
import os
import threading
import weakref

import numpy as np
import pytest
import strict_device

import autograd as ag
from autograd.context import context
from autograd.debug import NonFinite, Overwritten, first_nan, guard
from autograd.engine import Tensor


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


def leaf(values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def found(call):
    with pytest.raises(NonFinite) as caught, first_nan():
        call()
    return caught.value


# The first NaN


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("log", lambda: ag.exp(ag.log(leaf([1, -1])))),
        ("log", lambda: ag.log(leaf([0, 1])) * 2),
        ("exp", lambda: ag.log(ag.exp(leaf([1, 100])))),
        ("divide", lambda: leaf([1, 0]) / np.array([1, 0], np.float32) + 1),
        ("subtract", lambda: leaf([1, 2]) - np.array([np.nan, 0], np.float32)),
        ("softmax", lambda: ag.softmax(ag.where(np.zeros(3, bool), leaf([1, 2, 3]), np.float32(-np.inf)))),
        ("matmul", lambda: ag.matmul(leaf([[1e38, 1e38]]), leaf([[10.0], [10.0]]))),
        ("cast", lambda: ag.cast(leaf([1e5]), dtype=np.float16)),
        ("sum", lambda: ag.sum(leaf([3e38, 3e38]))),
    ],
)
def test_the_op_that_made_it_is_named_in_forward(op, call):
    error = found(call)
    assert (error.op, error.phase) == (op, "forward")


@pytest.mark.parametrize(
    ("op", "call"),
    [
        ("sqrt", lambda: ag.sqrt(leaf([0.0, 1.0]) * 2).sum().backward()),
        ("power", lambda: ((leaf([0.0, 4.0]) ** 0.5) * 3).sum().backward()),
        ("multiply", lambda: ((leaf([1e-30]) * 1e20) * 1e30).sum().backward()),
        ("divide", lambda: (ag.tanh(leaf([1.0])) / leaf([1e-30])).sum().backward()),
    ],
)
def test_the_op_that_made_it_is_named_in_backward(op, call):
    error = found(call)
    assert (error.op, error.phase) == (op, "backward")


def test_the_message_says_what_went_in_what_came_out_and_which_line_called():
    x = leaf([1, 2, -3])

    def loss():
        with ag.scope("blocks.1"), ag.scope("attention"):
            return ag.log(x * 2)

    error = found(loss)
    first, *rest = str(error).splitlines()
    assert first == "forward of log made the first non-finite value, layer blocks.1.attention"
    line = inspect.getsourcelines(loss)[1] + 2
    assert rest == [
        "    x: float32[3], -6 … 4",
        "    result: float32[3], 0.6931 … 1.386, 1 NaN",
        f"    called at {__file__.removeprefix(os.getcwd() + os.sep)}:{line}, in loss: return ag.log(x * 2)",
    ]
    assert error.at == (__file__, line, "loss")
    assert error.path == "blocks.1.attention"


def test_in_backward_the_line_is_that_of_the_forward():
    x = leaf([0, 4])

    def loss():
        with ag.scope("norm"):
            y = ag.sqrt(x)
        return y.sum()

    with first_nan():
        y = loss()
        with pytest.raises(NonFinite) as caught:
            y.backward()
    assert caught.value.at == (__file__, inspect.getsourcelines(loss)[1] + 2, "loss")
    assert caught.value.path == "norm"
    assert "gradient of x: float32[2], 0.25 … 0.25, 1 inf" in str(caught.value)
    assert "dy: float32[2], 1 … 1" in str(caught.value)
    assert "y: float32[2], 0 … 2" in str(caught.value)


def test_a_nan_that_came_in_is_told_from_one_that_was_made():
    assert "weight of linear held NaN already when it came in" in str(
        found(lambda: ag.linear(leaf([[1, 2]]), leaf([[np.nan, 1]])))
    )
    assert "weight of linear held infinities already when it came in" in str(
        found(lambda: ag.linear(leaf([[1, 2]]), leaf([[np.inf, 1]])))
    )


def test_infinities_that_mask_pass():
    mask = np.array([[0, -np.inf], [0, 0]], np.float32)
    with first_nan():
        x = leaf([[1, 2], [3, 4]])
        ag.softmax(x + mask).sum().backward(np.float32(1))
        q = leaf(np.ones((1, 1, 2, 2)))
        ag.attention(q, q, q, bias=mask).sum().backward()
    assert np.isfinite(x.grad).all()


def test_a_seed_that_is_not_finite_and_a_sum_that_overflows_are_told():
    x = leaf([1, 2])
    error = found(lambda: ag.exp(x).backward(np.array([1, np.nan], np.float32)))
    assert "the gradient of the result of exp is not finite: the seed is not, or a sum over its uses" in str(error)

    def overflow():
        y = leaf([1e-5]) * 1
        (y * np.float32(2e38) + y * np.float32(2e38)).sum().backward()

    error = found(overflow)
    assert (error.op, error.phase) == ("multiply", "backward")
    assert "a sum over its uses" in str(error)


def test_inside_recompute_the_inner_op_is_named():
    def block(x):
        with ag.scope("inner"):
            return ag.sqrt(x * 1)

    error = found(lambda: ag.recompute(block, leaf([0.0])).sum().backward())
    assert (error.op, error.phase, error.path) == ("sqrt", "backward", "inner")


def test_integers_and_device_arrays_are_looked_at_rightly():
    with first_nan():
        ag.embedding(leaf([[1, 2]]), np.array([0])).sum().backward()
    on_device = Tensor(strict_device.asarray(np.array([1.0, -1.0])), requires_grad=True)
    error = found(lambda: ag.log(on_device))
    assert "x: float64[2], -1 … 1" in str(error)


def test_a_mode_holds_in_its_block_and_its_thread_only():
    functions = context.run, context.record, context.pull
    seen = []
    with first_nan(), guard():
        assert (context.run, context.record, context.pull) != functions
        thread = threading.Thread(target=lambda: seen.append((context.run, context.record, context.pull)))
        thread.start()
        thread.join()
    assert seen == [functions]
    assert (context.run, context.record, context.pull) == functions
    with pytest.raises(NonFinite), first_nan():
        ag.log(leaf([-1]))
    assert (context.run, context.record, context.pull) == functions


@pytest.mark.parametrize("mode", [first_nan, guard])
def test_a_mode_keeps_no_graph_alive(mode):
    with mode():
        y = ag.exp(leaf([1, 2]))
        node = weakref.ref(y.node)
        del y
        gc.collect()
        assert node() is None


@pytest.mark.parametrize("mode", [first_nan, guard])
def test_a_mode_changes_no_number(mode):
    def gradient():
        x = leaf(np.linspace(-1, 1, 6).reshape(2, 3))
        y = ag.layer_norm(ag.recompute(lambda x: ag.gelu(x) * x, x), leaf([1, 2, 3]))
        ag.softmax(y).sum(axis=0).backward(np.array([1, 2, 3], np.float32))
        return x.grad

    expected = gradient()
    with mode():
        np.testing.assert_array_equal(gradient(), expected)


# Overwritten


def overwritten(forward, change):
    with guard():
        y = forward()
        change()
        with pytest.raises(Overwritten) as caught:
            y.sum().backward()
    return caught.value


def test_an_array_overwritten_after_forward_is_named():
    x, w = leaf([[1, 2]]), leaf([[3, 4], [5, 6]])

    def forward():
        with ag.scope("blocks.0"), ag.scope("up"):
            return ag.linear(x, w)

    error = overwritten(forward, lambda: w.data.__imul__(2))
    assert (error.op, error.path, error.name) == ("linear", "blocks.0.up", "weight")
    line = inspect.getsourcelines(forward)[1] + 2
    assert error.at == (__file__, line, "forward")
    assert "weight float32[2, 2], saved by linear, layer blocks.0.up, was overwritten between forward and" in str(error)
    assert "it is the memory of weight, a leaf that was written to" in str(error)
    assert f"test_debug.py:{line}, in forward: return ag.linear(x, w)" in str(error)


@pytest.mark.parametrize("place", [0, -1, 5])
def test_one_element_is_enough_in_any_layout(place):
    array = np.arange(12.0).reshape(3, 4)[:, ::-2]
    x = Tensor(array, requires_grad=True)

    def change():
        array.reshape(-1, order="A")
        array[np.unravel_index(place % array.size, array.shape)] += 1e-12

    assert overwritten(lambda: x * x, change).op == "multiply"


def test_a_result_that_an_op_saved_is_guarded_too():
    x = leaf([1, 2])
    kept = []

    def forward():
        kept.append(ag.exp(x))
        return kept[0] * 1

    error = overwritten(forward, lambda: kept[0].data.fill(0))
    assert (error.op, error.name) == ("exp", "y")


def test_writing_to_what_nobody_saved_or_after_backward_is_fine():
    x, b = leaf([[1, 2]]), leaf([1, 1])
    with guard():
        y = x + b
        b.data += 1
        y.sum().backward()
        y = x * x
        y.sum().backward()
        x.data += 1
    assert x.grad.tolist() == [[1 + 2 * 1, 1 + 2 * 2]]
    assert b.grad.tolist() == [1, 1]


def test_a_frozen_weights_partner_may_change():
    x, w = Tensor(np.ones((1, 2))), leaf([[3, 4], [5, 6]], np.float64)
    with guard():
        y = ag.linear(x, w)
        w.data *= 2  # needed for the gradient of x only, which nobody wants
        y.sum().backward()
    assert w.grad.tolist() == [[1, 1], [1, 1]]


def test_the_input_of_a_recomputed_block_is_guarded():
    x = leaf([1, 2])
    y = ag.exp(x)
    error = overwritten(lambda: ag.recompute(lambda x: ag.tanh(x), y), lambda: y.data.fill(0))
    assert error.op.startswith("recompute")


def test_guard_on_the_device():
    x = Tensor(strict_device.asarray(np.ones(3)), requires_grad=True)
    error = overwritten(lambda: x * x, lambda: x.data.__setitem__(1, 2.0))
    assert error.op == "multiply"

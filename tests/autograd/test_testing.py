"""What the checks say and return, and what they refuse. That they catch wrong gradients: `test_mutations.py`."""

import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import autograd as ag
from autograd.testing import (
    LAYOUTS,
    REGIMES,
    arrays,
    check_gradient,
    check_primitive,
    check_vjp,
    laid_out,
    sample_array,
)


def test_one_wrong_element_of_a_large_input_is_named():
    x = sample_array((10, 30), seed=1)

    def vjp(dy, x):
        dx = 2 * x * dy
        dx[7, 11] *= 1.5
        return dx

    with pytest.raises(AssertionError, match=r"input 0 \(x\) at \[7, 11\].*seed=6"):
        check_vjp(lambda x: x**2, vjp, x, seed=6)


def test_the_message_names_op_input_worst_element_numbers_and_seed():
    def cube(a, b):
        return a**3 + b

    def vjp(dy, a, b):
        return dy * 3 * a**2 * np.array([1, 1.01, 1.1]), dy

    with pytest.raises(AssertionError) as caught:
        check_vjp(cube, vjp, np.array([1.0, 1, 1]), np.zeros(3), seed=42)
    message = str(caught.value)
    assert re.search(r"cube: .*input 0.*2.*the vjp says .*, the central difference .*seed=42", message)


@pytest.mark.parametrize(
    ("forward", "vjp", "inputs", "message"),
    [
        (np.exp, lambda dy, x: (dy, dy), [np.ones(2)], "returned 2 gradients for 1 inputs"),
        (np.exp, lambda dy, x: dy[:1] * np.exp(x[:1]), [np.ones(2)], r"gradient of input 0.* is float64\[1\]"),
        (np.exp, lambda dy, x: None, [np.ones(2)], r"gradient of input 0.* is None"),
        (
            lambda x, i: x[i],
            lambda dy, x, i: (dy, dy),
            [np.ones(2), np.array([0, 1])],
            r"input 1 \(i\) is .* be None",
        ),
        (lambda x: np.float32(x.sum()), lambda dy, x: dy * np.ones(2), [np.ones(2)], "returned float32: too coarse"),
        (np.log, lambda dy, x: dy / x, [np.zeros(2)], "nan|inf"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_check_vjp_refuses_what_is_no_gradient(forward, vjp, inputs, message):
    with pytest.raises(AssertionError, match=message):
        check_vjp(forward, vjp, *inputs)


def test_check_vjp_needs_no_engine_and_takes_integers_and_numbers():
    def forward(x, rows, scale):
        return x[rows] * scale

    def vjp(dy, x, rows, scale):
        dx = np.zeros_like(x)
        np.add.at(dx, rows, dy * scale)
        return dx, None, None

    check_vjp(forward, vjp, np.ones((3, 2), np.float32), np.array([2, 2, 0]), 3.0)


def test_terms_of_a_gradient_that_cancel_may_leave_their_last_bits():
    def zero(x):
        return 0 * x

    check_vjp(zero, lambda dy, x: dy * 0.3 - dy * 0.1 - dy * 0.2, np.ones(3))  # not exactly 0
    with pytest.raises(AssertionError, match="zero: "):
        check_vjp(zero, lambda dy, x: dy * 1e-13, np.ones(3))


def test_check_gradient_goes_through_the_engine():
    check_gradient(lambda x, w: ag.softmax(x @ w) * x[0, 0], sample_array((2, 3)), sample_array((3, 4), seed=1))
    check_gradient(lambda x, unused: ag.exp(x).sum(), np.ones(2), np.ones(3))
    with pytest.raises(AssertionError, match=r"<lambda>: .*input 0"):
        check_gradient(lambda x: x * x.detach(), np.ones(3))


KINKED = np.array([-1.5, 0.0, 0.0, 2.0])


@pytest.mark.parametrize("slope", [-1, -0.3, 0, 1])
def test_at_a_kink_any_value_between_the_two_slopes_is_a_gradient(slope):
    check_vjp(np.abs, lambda dy, x: dy * np.where(x == 0, slope, np.sign(x)), KINKED, kinks=True)


@pytest.mark.parametrize(("at_zero", "elsewhere"), [(1.001, 1), (-1.001, 1), (0, 1.001)])
def test_at_a_kink_a_value_outside_the_two_slopes_is_caught(at_zero, elsewhere):
    with pytest.raises(AssertionError, match=r"absolute: ∂y\[.\] / ∂x\[.\] of .* is not between the slopes .*seed=3"):
        check_vjp(
            np.abs, lambda dy, x: dy * np.where(x == 0, at_zero, elsewhere * np.sign(x)), KINKED, kinks=True, seed=3
        )


def test_kinks_are_checked_only_entry_by_entry():
    with pytest.raises(ValueError, match="at most 100 elements"):
        check_vjp(np.abs, lambda dy, x: dy * np.sign(x), np.zeros(101), kinks=True)


def test_checks_return_the_worst_relative_error():
    x = np.array([1.0, 2.0])
    assert 0 < check_vjp(np.exp, lambda dy, x: dy * np.exp(x), x) < 1e-8
    off = check_vjp(np.exp, lambda dy, x: dy * np.exp(x) * (1 + 3e-6), x)
    assert 1e-6 < off < 1e-5
    assert 0 < check_primitive(ag.exp, x) < 1e-8
    assert 0 < check_gradient(lambda x: ag.exp(x) * x, x) < 1e-8


def op_with(vjp_of, y_of=lambda x: 2 * x):
    @ag.primitive
    def toy(x):
        y, vjp = y_of(x), vjp_of(x)
        return y, vjp

    return toy


def twice(x):
    x *= 2
    return x


def dy_changed(x):
    def vjp(dy):
        dy *= 2
        return (dy.copy(),)

    return vjp


def asked_twice(x):
    state = [2.0]

    def vjp(dy):
        state[0] += 1e-12
        return (dy * state[0],)

    return vjp


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (op_with(lambda x: lambda dy: (2 * dy,), twice), "toy wrote into its input 0"),
        (op_with(dy_changed), "wrote into dy"),
        (op_with(lambda x: lambda dy: (2 * dy + 1,)), "not linear in dy"),
        (op_with(asked_twice), "asked twice, answers differently"),
        (op_with(lambda x: lambda dy: (2 * dy,), lambda x: 2 * x * (1 + (x.itemsize == 4) / 100)), "result in float32"),
        (
            op_with(lambda x: lambda dy: (0 * dy,), lambda x: np.ones(x.shape, int)),
            "returned int64: only floating point",
        ),
    ],
)
def test_check_primitive_catches_what_would_corrupt_a_graph(op, message):
    with pytest.raises(AssertionError, match=message):
        check_primitive(op, np.array([1.0, 2.0, 3.0], np.float32))


def test_check_primitive_catches_a_gradient_that_depends_on_what_is_frozen():
    @ag.primitive
    def product(a, b):
        y = a * b
        both = all(ag.needs())

        def vjp(dy):
            return dy * b * (1 if both else 1.01), dy * a

        return y, vjp

    with pytest.raises(AssertionError, match=r"freezing .* changes the gradient"):
        check_primitive(product, np.ones(3), np.ones(3))


@given(arrays())
def test_drawn_arrays_have_up_to_four_axes_of_any_layout(x):
    assert x.dtype == np.float64
    assert x.ndim <= 4
    assert all(1 <= n <= 5 for n in x.shape)
    assert np.isfinite(x).all()


@given(arrays(shape=(3, 4), dtype=["float16", "float32"], regime="ties", layout="strided"))
def test_drawn_arrays_are_what_was_asked_for(x):
    assert x.shape == (3, 4)
    assert x.dtype in (np.float16, np.float32)
    assert set(np.unique(x)) <= {-1, 0, 1}
    assert not x.flags.c_contiguous


def test_a_repeated_array_has_one_row_in_memory_and_cannot_be_written():
    x = sample_array((3, 2), layout="repeated", seed=1)
    assert x.strides[0] == 0
    assert not x.flags.writeable
    assert np.array_equal(x, [sample_array((3, 2), seed=1)[0]] * 3)


@pytest.mark.parametrize("layout", [*LAYOUTS, "repeated"])
@pytest.mark.parametrize(
    "x", [np.array(2.5), np.zeros((0, 3)), np.array([1, 2], np.uint8)], ids=["0-d", "empty", "ids"]
)
def test_a_layout_changes_neither_shape_nor_dtype(x, layout):
    y = laid_out(x, layout)
    assert isinstance(y, np.ndarray)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert layout == "repeated" or np.array_equal(x, y)


@given(st.sampled_from(sorted(REGIMES)), st.sampled_from(LAYOUTS), st.integers(0, 99))
@settings(max_examples=30)
def test_a_seed_means_the_same_array_in_every_layout(regime, layout, seed):
    x = sample_array((3, 2), "float64", regime, "contiguous", seed)
    y = sample_array((3, 2), "float64", regime, layout, seed)
    assert np.array_equal(x, y)
    assert (layout == "contiguous") == y.flags.c_contiguous

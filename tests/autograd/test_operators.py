"""Operators and methods of Tensor, also reflected, also with a NumPy array on the left."""

import numpy as np
import pytest

import autograd as ag
from autograd.engine import Tensor
from autograd.testing import check_gradient, sample_array

X, Y = abs(sample_array((2, 3), seed=1)) + 0.5, abs(sample_array((2, 3), seed=2)) + 0.5
SQUARE = sample_array((3, 3), seed=3)

BINARY = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
}


@pytest.mark.parametrize("symbol", BINARY)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Tensor, Tensor),
        (Tensor, np.asarray),
        (np.asarray, Tensor),
        (Tensor, float),
        (float, Tensor),
        (np.float64, Tensor),
    ],
)
def test_binary_operators_in_every_pairing(symbol, left, right):
    f = BINARY[symbol]
    x, y = (2.5 if kind in (float, np.float64) else array for kind, array in ((left, X), (right, Y)))
    result = f(left(x), right(y))
    assert isinstance(result, Tensor)
    np.testing.assert_allclose(result.data, f(np.asarray(x), np.asarray(y)))
    if left is Tensor:
        check_gradient(lambda x: f(x, right(y)), x)
    if right is Tensor:
        check_gradient(lambda y: f(left(x), y), y)


@pytest.mark.parametrize("flip", [False, True])
def test_matrix_product_with_an_array_on_either_side(flip):
    f = (lambda x: SQUARE @ x) if flip else (lambda x: x @ SQUARE)
    np.testing.assert_allclose(f(Tensor(SQUARE.T)).data, f(SQUARE.T))
    check_gradient(f, SQUARE.T)


def test_a_python_number_keeps_float32():
    for y in (2 * Tensor(X.astype(np.float32)), Tensor(X.astype(np.float32)) ** 2, 1 / Tensor(X.astype(np.float32))):
        assert y.dtype == np.float32


@pytest.mark.parametrize(
    "f",
    [
        lambda x: -x,
        lambda x: abs(x),
        lambda x: x[1],
        lambda x: x[:, ::2],
        lambda x: x.T,
        lambda x: x.sum(),
        lambda x: x.sum(0),
        lambda x: x.sum(axis=1, keepdims=True),
        lambda x: x.mean(),
        lambda x: x.mean(axis=-1),
        lambda x: x.max(axis=1),
        lambda x: x.max(),
        lambda x: x.reshape(3, 2),
        lambda x: x.reshape((3, 2)),
        lambda x: x.reshape(-1),
        lambda x: x.transpose(),
        lambda x: x.transpose(1, 0),
        lambda x: x.transpose((1, 0)),
        lambda x: x.astype(np.float64),
    ],
)
def test_methods_are_numpys_and_have_gradients(f):
    np.testing.assert_array_equal(f(Tensor(X)).data, f(X))
    check_gradient(f, X)


def test_comparisons_are_arrays_of_bools_from_either_side():
    x, y = Tensor(X), Tensor(Y)
    for a, b in ((x, y), (x, Y), (X, y), (x, 1.0), (1.0, y)):
        raw_a, raw_b = getattr(a, "data", a) if isinstance(a, Tensor) else a, b.data if isinstance(b, Tensor) else b
        for got, expected in (
            (a < b, raw_a < raw_b),
            (a <= b, raw_a <= raw_b),
            (a > b, raw_a > raw_b),
            (a >= b, raw_a >= raw_b),
        ):
            assert isinstance(got, np.ndarray)
            np.testing.assert_array_equal(got, expected)
    check_gradient(lambda x: ag.where(x > 1, x * x, x), X)


def test_a_tensor_says_what_it_is():
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), np.float32, 2, 6, 2)
    assert "float32[2, 3], requires_grad=True" in repr(x)
    assert "from multiply" in repr(x * 2)
    assert [row.shape for row in x] == [(3,), (3,)]
    assert x.numpy() is x.data
    assert x.sum().item() == 6
    assert Tensor([1.0, 2.0]).dtype == np.float64


def test_detach_shares_the_array_and_stops_the_gradient():
    x = Tensor(X, requires_grad=True)
    y = (x * 2).detach()
    assert not y.requires_grad
    assert x.detach().data is x.data
    (x * x.detach()).sum().backward()
    np.testing.assert_array_equal(x.grad, X)


def test_sum_over_no_axes_is_a_tensor_of_an_array():
    assert isinstance(Tensor(X).sum().data, np.ndarray)
    assert isinstance((Tensor(1.0) * 2).data, np.ndarray)


@pytest.mark.parametrize("thing", [["a", "b"], "abc", [ag.Tensor([1.0]), ag.Tensor([2.0])]])
def test_a_tensor_holds_numbers(thing):
    with pytest.raises(TypeError, match=r"Tensor.* takes numbers"):
        ag.Tensor(thing)


@pytest.mark.parametrize("op", [ag.stack, ag.concatenate])
def test_a_list_of_tensors_is_refused_not_taken_as_an_array(op):
    with pytest.raises(TypeError, match=r"takes its tensors one by one: \w+\(\*tensors\)"):
        op([ag.Tensor([1.0], requires_grad=True), ag.Tensor([2.0])])


def test_sigmoid_keeps_its_tails():
    x = np.array([-80, -20.0, 0, 20, 80], np.float32)
    y = ag.sigmoid(ag.Tensor(x)).numpy()
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6)

"""Where a derivative jumps, for every op with such a place: the stated convention, between the slopes on both sides.

Numbers are drawn from -1, 0, 1, so that most of an array lies on a kink or in a tie. That other ops need no convention
is proven too: `test_registry.py` draws such numbers for all of them, and there central differences agree with the
gradient. What remains are poles (a root, a logarithm or a negative power at 0), where the gradient is infinite.
"""

import inspect
import re

import hypothesis.strategies as st
import numpy as np
import pytest
from primitive_strategies import STRATEGIES, Floats, drawn
from proof_record import example
from test_primitives import OURS

import autograd as ag
from autograd.engine import PRIMITIVES, Tensor
from autograd.testing import check_gradient

ON_KINKS = Floats(["ties"], away=0)


def slopes_of_one(slope):
    """Conventions of an elementwise op of one array: the slope at each number."""
    return lambda dy, x, **options: [dy * np.vectorize(lambda number: slope(number, **options), otypes="d")(x)]


def slopes_of_two(of_first):
    """Conventions of an elementwise op of two that broadcast: the first's share of dy; the rest is the other's."""

    def gradients(dy, a, b):
        pairs = np.broadcast(a, b)
        share = np.array([of_first(*pair) for pair in pairs], dtype=float).reshape(pairs.shape)
        return [summed_like(a, dy * share), summed_like(b, dy * (1 - share))]

    return gradients


def summed_like(x, dy):
    """What an input that was repeated receives: the sum of what its copies receive."""
    total = np.zeros(np.size(x))
    copies = np.broadcast_to(np.arange(np.size(x)).reshape(np.shape(x)), dy.shape)
    np.add.at(total, copies.reshape(-1), dy.reshape(-1))
    return total.reshape(np.shape(x))


def shares_of_maxima(dy, x, *, axis=None, keepdims=False):
    kept = x.max(axis, keepdims=True).shape
    result_of = np.broadcast_to(np.arange(dy.size).reshape(kept), x.shape)  # which result each element goes into
    dx = np.zeros(x.shape)
    for result, dy_of_result in enumerate(dy.reshape(-1)):
        members = [at for at in np.ndindex(x.shape) if result_of[at] == result]
        winners = [at for at in members if x[at] == max(x[at] for at in members)]
        for at in winners:
            dx[at] = dy_of_result / len(winners)
    return [dx]


CONVENTIONS = {
    "absolute": slopes_of_one(lambda x: {-1: -1, 0: 0, 1: 1}[x]),
    "clip": slopes_of_one(lambda x, low=-9, high=9: 1 if low <= x <= high else 0),
    "max": shares_of_maxima,
    "maximum": slopes_of_two(lambda a, b: 1 if a > b else 0.5 if a == b else 0),
    "minimum": slopes_of_two(lambda a, b: 1 if a < b else 0.5 if a == b else 0),
    "relu": slopes_of_one(lambda x: {-1: 0, 0: 0, 1: 1}[x]),
    "squared_relu": slopes_of_one(lambda x: {-1: 0, 0: 0, 1: 2}[x]),
}


def test_ops_with_a_convention_are_those_whose_docstrings_say_so():
    said = {name for name in OURS if re.search(r"convention|kink|\btie", inspect.getdoc(PRIMITIVES[name]))}
    assert said == set(CONVENTIONS)


@pytest.mark.parametrize("name", CONVENTIONS)
@drawn(data=st.data())
def test_at_kinks_and_ties_the_gradient_is_the_convention_between_the_slopes(name, data):
    case = data.draw(STRATEGIES[name](ON_KINKS))
    op = PRIMITIVES[name]
    leaves = [Tensor(x, requires_grad=True) if isinstance(x, np.ndarray) else x for x in case.inputs]
    y = op(*leaves, **case.options)
    dy = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(y.shape)
    y.backward(dy)
    for leaf, expected in zip(leaves, CONVENTIONS[name](dy, *case.inputs, **case.options), strict=True):
        if isinstance(leaf, Tensor):
            np.testing.assert_allclose(leaf.grad, expected, rtol=1e-14, atol=1e-14)
    example(name, check_gradient(lambda *xs: op(*xs, **case.options), *case.inputs, kinks=True))


@pytest.mark.parametrize(
    ("f", "gradient"),
    [
        (ag.sqrt, np.inf),
        (ag.log, np.inf),
        (lambda x: x**0.5, np.inf),
        (lambda x: 1 / x, -np.inf),
        (lambda x: x**-2, -np.inf),
        (ag.log1p, 1),
        (lambda x: x**1.5, 0),
    ],
)
def test_at_a_pole_the_gradient_is_infinite_and_nowhere_else(f, gradient):
    x = Tensor(np.zeros(2), requires_grad=True)
    with np.errstate(divide="ignore"):
        f(x).backward(np.array([1.0, 3.0]))
    np.testing.assert_array_equal(x.grad, [gradient, 3 * gradient])

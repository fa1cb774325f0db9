"""The rectifiers' kernels, which are equal to their ops to the bit."""

import numpy as np
import pytest

import autograd as ag
from autograd.engine import Tensor
from autograd.kernels import load
from autograd.testing import sample_array

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba.launch import at_most  # noqa: E402


def forward_and_backward(op, x):
    """(y, dx) as bytes, with a dy that holds NaN and infinity."""
    leaf = Tensor(x, requires_grad=True)
    y = op(leaf)
    dy = sample_array(x.shape, "float32", seed=1)
    dy.reshape(-1)[5:8] = np.inf, -np.inf, np.nan
    y.backward(dy)
    return [(array + np.float32(0)).tobytes() for array in (y.data, leaf.grad)]  # -0 becomes 0


@pytest.mark.parametrize("op", [ag.relu, ag.squared_relu], ids=repr)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
@pytest.mark.parametrize("shape", [(1, 31), (1, 8191), (2, 4096), (3, 2731), (7, 11, 301)], ids=str)
def test_rectifiers_equal_their_ops(op, shape, layout):
    x = sample_array(shape, "float32", layout=layout)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        got = forward_and_backward(op, x)
    assert ag.kernels_used()[op.name] == {"numba": 1}
    with np.errstate(invalid="ignore"):
        assert got == forward_and_backward(op, x)


@pytest.mark.parametrize("op", [ag.relu, ag.squared_relu], ids=repr)
def test_zeros_and_what_is_not_finite(op):
    x = np.tile(np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e30]), 8)
    with np.errstate(all="ignore"):
        with ag.use_kernels("numba"):
            got = forward_and_backward(op, x)
        expected = forward_and_backward(op, x)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(np.frombuffer(a, np.float32), np.frombuffer(b, np.float32))


@pytest.mark.parametrize("op", [ag.relu, ag.squared_relu], ids=repr)
def test_the_same_bits_on_one_thread(op):
    x = sample_array((300, 1001), "float32")
    with ag.use_kernels("numba"):
        first = forward_and_backward(op, x)
        with at_most(1):
            assert forward_and_backward(op, x) == first

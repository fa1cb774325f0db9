"""The product of bfloat16 matrices by the processor's own instruction: float32 sums, rounded once."""

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("ml_dtypes")
import ml_dtypes

from autograd.backends.numba import building, launch

if not building.processor_has("avx512bf16"):
    pytest.skip("this processor has no products of bfloat16 numbers", allow_module_level=True)
from autograd.backends.numba import bf16


def matrix(seed, rows, columns, turned):
    """bfloat16 numbers of order one, by rows or by columns."""
    x = np.random.default_rng(seed).standard_normal((columns, rows) if turned else (rows, columns))
    x = x.astype(ml_dtypes.bfloat16)
    return x.T if turned else x


def require_rounded_once(y, a, b):
    """y is the product, off by half a place of bfloat16 and what sums in float32 lose."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    allowed = np.abs(exact) * 2.0**-8 + size * a.shape[1] * 2.0**-24
    assert y.dtype == ml_dtypes.bfloat16
    assert (np.abs(y.astype(np.float64) - exact) <= allowed).all()


@pytest.mark.parametrize("a_turned", [False, True])
@pytest.mark.parametrize("b_turned", [False, True])
@pytest.mark.parametrize(
    ("M", "K", "N"),
    [(1, 1, 1), (12, 2, 32), (13, 3, 33), (5, 8, 7), (24, 16, 64), (27, 31, 95), (40, 65, 31), (200, 130, 70)],
)
def test_the_product_of_awkward_shapes(M, K, N, a_turned, b_turned):
    a, b = matrix(M, M, K, a_turned), matrix(N, K, N, b_turned)
    require_rounded_once(bf16.product(a, b), a, b)


@pytest.mark.parametrize("rows", range(1, 31))
def test_every_number_of_rows_that_is_left_over(rows):
    a, b = matrix(rows, rows, 6, False), matrix(1, 6, 40, True)
    require_rounded_once(bf16.product(a, b), a, b)


def test_matrices_that_lie_in_neither_order():
    a, b = matrix(0, 60, 50, False)[::2, ::-1], matrix(1, 100, 40, True)[::2, 3:]
    require_rounded_once(bf16.product(a, b), a, b)


def test_whole_numbers_are_multiplied_exactly():
    a = (np.arange(24 * 5) % 41 - 20).reshape(24, 5).astype(ml_dtypes.bfloat16)
    b = (np.arange(5 * 33).reshape(5, 33) % 3 - 1).astype(ml_dtypes.bfloat16)
    exact = a.astype(np.float32) @ b.astype(np.float32)  # below 2^8
    np.testing.assert_array_equal(bf16.product(a, b).astype(np.float32), exact)


def test_ties_go_to_the_even_neighbour_and_what_is_no_number_stays_none():
    one = np.ones((1, 1), ml_dtypes.bfloat16)
    sums = np.array([[1.0, 1.0, 1.0, np.inf, -np.inf, np.nan, 3e38], [2**-8, 3 * 2**-8, 2**-7, 0, 0, 0, 3e38]])
    y = bf16.product(np.repeat(one, 2, 1), sums.astype(ml_dtypes.bfloat16)).astype(np.float32)[0]
    np.testing.assert_array_equal(y, [1.0, 1 + 2**-6, 1 + 2**-7, np.inf, -np.inf, np.nan, np.inf])


def test_the_same_bits_on_any_number_of_threads():
    a, b = matrix(0, 1000, 70, False), matrix(1, 70, 90, False)
    with launch.at_most(1):
        alone = bf16.product(a, b)
    assert alone.tobytes() == bf16.product(a, b).tobytes()


def test_a_bias_is_added_before_the_result_is_rounded():
    a, b, bias = matrix(0, 30, 20, False), matrix(1, 20, 40, True), matrix(2, 1, 40, False)[0]
    one = np.ones((30, 1), ml_dtypes.bfloat16)
    joined = bf16.product(np.hstack([a, one, 0 * one]), np.vstack([b, bias, 0 * bias]))
    np.testing.assert_array_equal(bf16.product(a, b, bias), joined)

"""`matmul` and `linear` with their products on the kernels' own threads, and the bias in a pass of its own."""

import numpy as np
from numba import float32, prange, types, void

from autograd.arrays import is_half
from autograd.backends.numba import blas
from autograd.backends.numba.activation import flatten
from autograd.backends.numba.building import BLOCK, compiled, processor_has
from autograd.backends.numba.halves import alike, is_bfloat16, rounded, widened
from autograd.backends.numba.launch import launch
from autograd.ops.elementwise import like, unbroadcast
from autograd.ops.linalg import linear, matmul, swap

multiplies_pairs = processor_has("avx512bf16") and not blas.native_bf16
"""Whether products of bfloat16 are ours; matrix units are faster still."""
if multiplies_pairs:
    from autograd.backends.numba import bf16

read_only = types.Array(types.float32, 2, "C", readonly=True)


@compiled(void(float32[:, ::1], float32[::1]), parallel=True)
def add_bias(y, bias):
    for row in prange(len(y)):
        ys = y[row]
        for j in range(bias.size):
            ys[j] += bias[j]


@compiled(void(float32[:, ::1], float32[:, ::1]), parallel=True)
def sum_blocks(dy, sums):
    """sums[i] = the sum of the i-th BLOCK rows"""
    for block in prange(len(sums)):
        total = sums[block]
        total[:] = np.float32(0)
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(dy))):
            dys = dy[row]
            for j in range(total.size):
                total[j] += dys[j]


ROWS_AT_ONCE = 64  # of the weight, a thread's share of a product with few rows
FEW = 4


@compiled(void(read_only, read_only, float32[::1], float32[:, ::1]), parallel=True)
def product_of_few(x, weight, bias, y):
    """y = x Wᵀ + b for a few rows of x: each row of the weight is read once, and reading it is all that takes time."""
    for piece in prange((len(weight) + ROWS_AT_ONCE - 1) // ROWS_AT_ONCE):
        for row in range(piece * ROWS_AT_ONCE, min((piece + 1) * ROWS_AT_ONCE, len(weight))):
            ws = weight[row]
            for i in range(len(x)):
                xs, total = x[i], np.float32(0)
                for j in range(ws.size):
                    total += xs[j] * ws[j]
                y[i, row] = total + bias[row]


def affine(rows, weight, bias):
    """rows Wᵀ + b"""
    if len(rows) > FEW or not weight.flags.c_contiguous:
        return product(rows, weight.T, bias)
    dtype, rows, weight = rows.dtype, widened(rows), widened(weight)
    y = np.empty((len(rows), len(weight)), np.float32)
    bias = np.zeros(len(weight), np.float32) if bias is None else flatten(widened(bias))
    launch(product_of_few, rows, weight, bias, y, work=weight.size)
    return rounded(y, dtype)


def product(a, b, bias=None):
    """a b + bias of matrices in their dtype, summed in float32 and rounded once."""
    if multiplies_pairs and is_bfloat16(a):
        return bf16.product(a, b, bias)
    y = blas.product(a, b)
    if bias is not None:
        launch(add_bias, y, flatten(widened(bias)))
    return rounded(y, a.dtype)


def sum_of_rows(dy):
    sums = np.empty((-(-len(dy) // BLOCK), dy.shape[1]), np.float32)
    launch(sum_blocks, dy, sums)
    return sums.sum(0)


@linear.kernel("numba")
def linear_kernel(x, weight, bias=None):
    if not alike(x, weight, bias):
        return NotImplemented
    n_out, n_in = weight.shape
    if x.size == 0 or weight.size == 0 or x.shape[-1] != n_in:
        return NotImplemented
    rows = np.ascontiguousarray(x).reshape(-1, n_in)
    y = affine(rows, weight, bias)
    shape, dtype = x.shape, x.dtype

    def dx(dy):
        # y = rows @ weight.T + bias
        return product(as_rows(dy, n_out), weight).reshape(shape)

    def dweight(dy, out=None):
        # y = rows @ weight.T + bias
        if is_half(dtype):
            return product(as_rows(dy, n_out).T, rows)
        return blas.product(as_rows(dy, n_out).T, rows, out=out)

    def dbias(dy):
        # y = rows @ weight.T + bias
        return rounded(sum_of_rows(widened(as_rows(dy, n_out))), dtype)

    vjp = (dx, dweight, dbias)
    return y.reshape(*shape[:-1], n_out), vjp


@matmul.kernel("numba")
def matmul_kernel(a, b):
    if not alike(a, b) or min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        return NotImplemented
    y = stacked(a, b)
    (a_shape, dtype), (b_shape, _) = like(a), like(b)

    def da(dy):
        # y = a @ b
        return rounded(unbroadcast(stacked(dy, swap(b)), (a_shape, np.float32)), dtype)

    def db(dy):
        # y = a @ b
        return rounded(unbroadcast(stacked(swap(a), dy), (b_shape, np.float32)), dtype)

    vjp = (da, db)
    return rounded(y, dtype), vjp


def stacked(a, b):
    """a b in float32, of two matrices by cutting them, of many by taking several at a time."""
    return blas.product(a, b) if a.ndim == b.ndim == 2 else blas.stacked_product(widened(a), widened(b))


def as_rows(dy, n_out):
    return np.ascontiguousarray(dy).reshape(-1, n_out)

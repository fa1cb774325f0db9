"""Matrix products, where a language model spends its time."""

import math

from autograd.arrays import matmul as product
from autograd.arrays import widen
from autograd.engine import primitive
from autograd.ops.elementwise import like, unbroadcast


def swap(x):
    """The transpose of the last two axes."""
    return x.swapaxes(-1, -2)


@primitive
def matmul(a, b):
    """Matrix product of the last two axes; leading axes are batches and broadcast.

    Equation   y_ij = Σ_k a_ik b_kj
    Shapes     a (..., M, K), b (..., K, N), y (..., M, N)
    Gradient   L depends on a_ik through row i of y, each y_ij with slope b_kj:  da = dy bᵀ;  likewise db = aᵀ dy
    Saves      b (for da), a (for db)
    Cost       2 M K N flops forward, twice that backward, per batch
    Precision  half-precision inputs: float32 accumulation, one rounding
    Errors     ValueError for vectors (reshape them to matrices) and for unequal K
    """
    if len(like(a)[0]) < 2 or len(like(b)[0]) < 2:
        raise ValueError("matmul takes matrices (..., M, K) and (..., K, N); reshape a vector to one row or column")
    y = product(a, b)
    a_like, b_like = like(a), like(b)

    def da(dy):
        # y = a @ b
        return unbroadcast(product(dy, swap(b)), a_like)

    def db(dy):
        # y = a @ b
        return unbroadcast(product(swap(a), dy), b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def linear(x, weight, bias=None):
    """An affine map of the last axis. The weight is stored (out, in), as most published weights are.

    Equation   y = x Wᵀ + b
    Shapes     x (..., in), weight (out, in), bias (out) or None, y (..., out)
    Gradient   dx = dy W;  dW = dyᵀ x, summed over all rows;  db = Σ dy over all rows
    Saves      weight (for dx), rows (for dweight): x as one matrix
    Cost       2 N in out flops forward, twice that backward, for N rows
    Precision  half-precision inputs: float32 accumulation, one rounding
    Errors     ValueError for unequal `in`
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = product(rows, weight.T)
    if bias is not None:
        y += bias
    two_axes, x_like, weight_dtype, bias_dtype = y.shape, like(x), weight.dtype, like(bias)[1]

    def dx(dy):
        # y = rows @ weight.T + bias
        shape, dtype = x_like
        return product(dy.reshape(two_axes), weight).reshape(shape).astype(dtype, copy=False)

    def dweight(dy, out=None):
        # y = rows @ weight.T + bias
        return product(dy.reshape(two_axes).T, rows, out=out).astype(weight_dtype, copy=False)

    def dbias(dy):
        # y = rows @ weight.T + bias
        return widen(dy).reshape(two_axes).sum(0).astype(bias_dtype, copy=False)

    vjp = (dx, dweight, dbias)
    return y.reshape(*x.shape[:-1], len(weight)), vjp

"""Sums and casts of arrays that lie alike: NumPy does them on one thread, and those of half precision slowly."""

import numpy as np
from numba import prange, uint16, void

from autograd.arrays import is_half
from autograd.backends.numba.activation import elementwise, flatten
from autograd.backends.numba.building import PIECE, compiled
from autograd.backends.numba.halves import (
    alike,
    bits,
    from_bfloat16,
    from_float16,
    rounded,
    to_bfloat16,
    to_float16,
    widened,
)
from autograd.backends.numba.launch import launch
from autograd.kernels import for_rule
from autograd.ops.elementwise import add, cast


@compiled(elementwise(2), parallel=True)
def add_float32(a, b, y):
    for piece in prange((a.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        az, bz, ys = a[here], b[here], y[here]
        for i in range(az.size):
            ys[i] = az[i] + bz[i]


@compiled(void(bits, bits, uint16[::1]), parallel=True)
def add_float16(a, b, y):
    for piece in prange((a.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        az, bz, ys = a[here], b[here], y[here]
        for i in range(az.size):
            ys[i] = to_float16(from_float16(az[i]) + from_float16(bz[i]))


@compiled(void(bits, bits, uint16[::1]), parallel=True)
def add_bfloat16(a, b, y):
    for piece in prange((a.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        az, bz, ys = a[here], b[here], y[here]
        for i in range(az.size):
            ys[i] = to_bfloat16(from_bfloat16(az[i]) + from_bfloat16(bz[i]))


@for_rule("sum_of_halves", "numba")
def total(a, b):
    """a + b of two arrays of one shape and dtype."""
    if not alike(a, b) or a.shape != b.shape:
        return NotImplemented
    kernel = add_float32 if not is_half(a.dtype) else add_float16 if a.dtype.kind == "f" else add_bfloat16
    seen_as = np.uint16 if is_half(a.dtype) else np.float32
    y = np.empty(a.shape, a.dtype)
    launch(kernel, flatten(a).view(seen_as), flatten(b).view(seen_as), y.reshape(-1).view(seen_as))
    return y


@add.kernel("numba")
def add_kernel(a, b):
    y = total(a, b)
    if y is NotImplemented:
        return NotImplemented

    def da(dy):
        return dy

    def db(dy):
        return dy

    vjp = (da, db)
    return y, vjp


@cast.kernel("numba")
def cast_kernel(x, *, dtype):
    before, dtype = getattr(x, "dtype", None), np.dtype(dtype)
    if not alike(x) or {before.itemsize, dtype.itemsize} != {2, 4} or dtype.kind not in "fV":
        return NotImplemented
    y = rounded(x, dtype) if before == np.float32 else widened(x)

    def dx(dy, out=None):
        return widened(dy, out) if before == np.float32 else rounded(dy, before)

    vjp = (dx,)
    return y, vjp

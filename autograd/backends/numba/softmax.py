"""Softmax and its logarithms along the last axis: a row stays in the cache while the passes go over it."""

import math

import numpy as np
from numba import float32, prange, void

from autograd.backends.numba.activation import flatten, is_float32
from autograd.backends.numba.building import compiled, inlined
from autograd.backends.numba.formulas import ONE, ZERO, exp, f32, larger
from autograd.backends.numba.halves import in_float32
from autograd.backends.numba.launch import launch
from autograd.ops.softmax import log_softmax, logsumexp, softmax

INF = f32(math.inf)

rows, column = float32[:, ::1], float32[::1]


@inlined
def largest(xs):
    """max x of a row. One with NaN has no maximum; whatever this is, its sum of exponentials is NaN."""
    top = -INF
    for j in range(xs.size):
        top = larger(xs[j], top)
    return top


@compiled(void(rows, rows), parallel=True)
def softmax_forward(x, y):
    """y = exp(x - max x) / Σ exp(x - max x)"""
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        top, total = largest(xs), ZERO
        for j in range(xs.size):
            ys[j] = exp(xs[j] - top)
            total += ys[j]
        scale = ONE / total
        for j in range(xs.size):
            ys[j] *= scale


@compiled(void(rows, rows, rows), parallel=True)
def softmax_backward(y, dy, dx):
    """dx = y (dy - Σ dy y)"""
    for row in prange(len(y)):
        ys, dys, dxs = y[row], dy[row], dx[row]
        dot = ZERO
        for j in range(ys.size):
            dot += dys[j] * ys[j]
        for j in range(ys.size):
            dxs[j] = ys[j] * (dys[j] - dot)


@compiled(void(rows, rows), parallel=True)
def log_softmax_forward(x, y):
    """y = (x - max x) - log Σ exp(x - max x), kept apart: next to a large maximum the logarithm would lose digits"""
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        top, total = largest(xs), ZERO
        for j in range(xs.size):
            ys[j] = xs[j] - top
            total += exp(ys[j])
        log_total = f32(math.log(total))
        for j in range(xs.size):
            ys[j] -= log_total


@compiled(void(rows, rows, rows), parallel=True)
def log_softmax_backward(y, dy, dx):
    """dx = dy - exp(y) Σ dy"""
    for row in prange(len(y)):
        ys, dys, dxs = y[row], dy[row], dx[row]
        total = ZERO
        for j in range(ys.size):
            total += dys[j]
        for j in range(ys.size):
            dxs[j] = dys[j] - exp(ys[j]) * total


@compiled(void(rows, column, column), parallel=True)
def logsumexp_forward(x, tops, totals):
    """top = max x, total = Σ exp(x - top)"""
    for row in prange(len(x)):
        xs = x[row]
        top, total = largest(xs), ZERO
        for j in range(xs.size):
            total += exp(xs[j] - top)
        tops[row], totals[row] = top, total


@compiled(void(rows, column, column, rows), parallel=True)
def logsumexp_backward(x, tops, scales, dx):
    """dx = exp(x - top) scale, scale = dy / total"""
    for row in prange(len(x)):
        xs, dxs = x[row], dx[row]
        top, scale = tops[row], scales[row]
        for j in range(xs.size):
            dxs[j] = exp(xs[j] - top) * scale


def as_rows(x):
    """(..., V) -> (rows, V)"""
    return flatten(x).reshape(-1, x.shape[-1])


def accepts(x, axis=-1):
    """Whether these kernels do this axis of x: float32, the last axis, not empty."""
    return is_float32(x) and x.ndim > 0 and x.size > 0 and axis in (-1, x.ndim - 1)


@softmax.kernel("numba")
@in_float32
def softmax_kernel(x, *, axis=-1):
    if not accepts(x, axis):
        return NotImplemented
    shape = x.shape
    y = np.empty((x.size // shape[-1], shape[-1]), np.float32)
    launch(softmax_forward, as_rows(x), y)

    def vjp(dy):
        dx = np.empty_like(y)
        launch(softmax_backward, y, as_rows(dy), dx)
        return (dx.reshape(shape),)

    return y.reshape(shape), vjp


@log_softmax.kernel("numba")
@in_float32
def log_softmax_kernel(x, *, axis=-1):
    if not accepts(x, axis):
        return NotImplemented
    shape = x.shape
    y = np.empty((x.size // shape[-1], shape[-1]), np.float32)
    launch(log_softmax_forward, as_rows(x), y)

    def vjp(dy):
        dx = np.empty_like(y)
        launch(log_softmax_backward, y, as_rows(dy), dx)
        return (dx.reshape(shape),)

    return y.reshape(shape), vjp


@logsumexp.kernel("numba")
@in_float32
def logsumexp_kernel(x, *, axis=-1, keepdims=False):
    if not accepts(x, axis):
        return NotImplemented
    shape, xs = x.shape, as_rows(x)
    tops, totals = np.empty((2, len(xs)), np.float32)
    launch(logsumexp_forward, xs, tops, totals)
    y = tops + np.log(totals)

    def vjp(dy):
        dx = np.empty_like(xs)
        launch(logsumexp_backward, xs, tops, dy.reshape(-1) / totals, dx)
        return (dx.reshape(shape),)

    return y.reshape(*shape[:-1], 1) if keepdims else y.reshape(shape[:-1]), vjp

"""Layer norm and RMS norm, which is layer norm with 0 in place of the mean and without a bias."""

import math

import numpy as np
from numba import boolean, float32, prange, void

from autograd.backends.numba.activation import flatten, is_float32
from autograd.backends.numba.building import BLOCK, compiled
from autograd.backends.numba.formulas import ONE, ZERO, f32
from autograd.backends.numba.halves import in_float32
from autograd.backends.numba.launch import launch
from autograd.backends.numba.softmax import accepts, as_rows
from autograd.ops.norm import layer_norm, rms_norm

rows, column = float32[:, ::1], float32[::1]


@compiled(void(rows, column, column, float32, boolean, rows, column, column), parallel=True)
def norm_forward(x, weight, bias, eps, centered, y, means, rstds):
    """y = (x - mean) rstd w + b, rstd = 1 / √(mean (x - mean)² + eps)"""
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        mean, square = ZERO, ZERO
        if centered:
            for j in range(xs.size):
                mean += xs[j]
            mean /= f32(xs.size)
        for j in range(xs.size):
            square += (xs[j] - mean) * (xs[j] - mean)
        rstd = ONE / f32(math.sqrt(square / f32(xs.size) + eps))
        for j in range(xs.size):
            ys[j] = (xs[j] - mean) * rstd * weight[j] + bias[j]
        means[row], rstds[row] = mean, rstd


@compiled(void(rows, column, boolean, column, column, rows, rows, rows, rows), parallel=True)
def norm_backward(x, weight, centered, means, rstds, dy, dx, dweights, dbiases):
    """dx = rstd (dy w - mean(dy w) - x̂ mean(dy w x̂)), x̂ = (x - mean) rstd;  dw = Σ dy x̂, db = Σ dy, a block each"""
    for block in prange(len(dweights)):
        dweight, dbias = dweights[block], dbiases[block]
        for j in range(dweight.size):
            dweight[j], dbias[j] = ZERO, ZERO
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            xs, dys, dxs = x[row], dy[row], dx[row]
            mean, rstd = means[row], rstds[row]
            shift, along = ZERO, ZERO
            for j in range(xs.size):
                dnormal = dys[j] * weight[j]
                shift += dnormal
                along += dnormal * ((xs[j] - mean) * rstd)
            shift = shift / f32(xs.size) if centered else ZERO
            along /= f32(xs.size)
            for j in range(xs.size):
                normal = (xs[j] - mean) * rstd
                dxs[j] = (dys[j] * weight[j] - shift - normal * along) * rstd
            for j in range(xs.size):
                dweight[j] += dys[j] * ((xs[j] - mean) * rstd)
                dbias[j] += dys[j]


def normalize(x, weight, bias, eps, centered):
    """y and a pullback to (dx, dweight, dbias)"""
    shape, xs, w = x.shape, as_rows(x), flatten(weight)
    b = np.zeros_like(w) if bias is None else flatten(bias)
    y = np.empty_like(xs)
    means, rstds = np.empty((2, len(xs)), np.float32)
    launch(norm_forward, xs, w, b, eps, centered, y, means, rstds)

    def vjp(dy):
        dx = np.empty_like(xs)
        dweights, dbiases = np.empty((2, -(-len(xs) // BLOCK), w.size), np.float32)
        launch(norm_backward, xs, w, centered, means, rstds, as_rows(dy), dx, dweights, dbiases)
        return dx.reshape(shape), dweights.sum(0), dbiases.sum(0)

    return y.reshape(shape), vjp


def fits(x, *vectors):
    """Whether x is float32 rows and the vectors one number for each of its columns."""
    return accepts(x) and is_float32(*vectors) and all(v.shape == x.shape[-1:] for v in vectors)


@layer_norm.kernel("numba")
@in_float32
def layer_norm_kernel(x, weight, bias=None, *, eps=1e-5):
    if not fits(x, weight, *(() if bias is None else (bias,))):
        return NotImplemented
    has_bias = bias is not None
    y, pull = normalize(x, weight, bias, eps, True)

    def vjp(dy):
        dx, dweight, dbias = pull(dy)
        return dx, dweight, dbias if has_bias else None

    return y, vjp


@rms_norm.kernel("numba")
@in_float32
def rms_norm_kernel(x, weight, *, eps=1e-5):
    if not fits(x, weight):
        return NotImplemented
    y, pull = normalize(x, weight, None, eps, False)

    def vjp(dy):
        dx, dweight, _ = pull(dy)
        return dx, dweight

    return y, vjp

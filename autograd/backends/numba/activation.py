"""The nonlinearities of feed-forward layers, one pass forward and one backward, saving their inputs only."""

import math

import numpy as np
from numba import float32, prange, void

from autograd.backends.numba.building import BLOCK, PIECE, compiled, inlined
from autograd.backends.numba.formulas import HALF, ONE, TWO, ZERO, erf, exp, f32, logistic
from autograd.backends.numba.halves import in_float32
from autograd.backends.numba.launch import launch
from autograd.ops.activation import gelu, silu, swiglu

ROOT_HALF, DENSITY_AT_0 = f32(math.sqrt(0.5)), f32(1 / math.sqrt(2 * math.pi))
A, THREE_C = f32(math.sqrt(2 / math.pi)), f32(3 * 0.044715)
C = f32(0.044715)

flat, rows = float32[::1], float32[:, ::1]


def elementwise(n_inputs, n_outputs=1):
    """Signature of a kernel over flat arrays: inputs, then outputs."""
    return void(*[flat] * (n_inputs + n_outputs))


@inlined
def exact(z):
    """z Φ(z)"""
    return z * HALF * (ONE + erf(z * ROOT_HALF))


@inlined
def exact_slope(z):
    """Φ + z φ"""
    cdf = HALF * (ONE + erf(z * ROOT_HALF))
    density = DENSITY_AT_0 * exp(-HALF * z * z)
    return cdf + z * density


@inlined
def by_tanh(z):
    """z (1 + tanh(u)) / 2 = z σ(2u), u = a (z + c z³)"""
    return z * logistic(TWO * A * z * (ONE + C * z * z))


@inlined
def by_tanh_slope(z):
    """σ + z σ (1 - σ) 2u', σ = σ(2u)"""
    square = z * z
    e = exp(-TWO * A * z * (ONE + C * square))
    s = ONE / (ONE + e)
    # 1 - σ = e σ, which keeps its digits where σ is near 1
    return s + z * (s * (e * s)) * (TWO * A * (ONE + THREE_C * square))


@compiled(elementwise(1), parallel=True)
def gelu_forward(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        xs, ys = x[piece * PIECE : (piece + 1) * PIECE], y[piece * PIECE : (piece + 1) * PIECE]
        for i in range(xs.size):
            ys[i] = exact(xs[i])


@compiled(elementwise(2), parallel=True)
def gelu_backward(x, dy, dx):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, dys, dxs = x[here], dy[here], dx[here]
        for i in range(xs.size):
            dxs[i] = dys[i] * exact_slope(xs[i])


@compiled(elementwise(1), parallel=True)
def gelu_tanh_forward(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = by_tanh(xs[i])


@compiled(elementwise(2), parallel=True)
def gelu_tanh_backward(x, dy, dx):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, dys, dxs = x[here], dy[here], dx[here]
        for i in range(xs.size):
            dxs[i] = dys[i] * by_tanh_slope(xs[i])


@compiled(void(rows, flat, rows), parallel=True)
def gelu_bias_forward(x, bias, y):
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        for j in range(bias.size):
            ys[j] = exact(xs[j] + bias[j])


@compiled(void(rows, flat, rows, rows, rows), parallel=True)
def gelu_bias_backward(x, bias, dy, dx, sums):
    """dx, and sums[i] = that of the i-th BLOCK rows of dx, each of which is in the cache when it is added"""
    for block in prange(len(sums)):
        total = sums[block]
        total[:] = ZERO
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            xs, dys, dxs = x[row], dy[row], dx[row]
            for j in range(bias.size):
                dxs[j] = dys[j] * exact_slope(xs[j] + bias[j])
            for j in range(bias.size):
                total[j] += dxs[j]


@compiled(void(rows, flat, rows), parallel=True)
def gelu_tanh_bias_forward(x, bias, y):
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        for j in range(bias.size):
            ys[j] = by_tanh(xs[j] + bias[j])


@compiled(void(rows, flat, rows, rows, rows), parallel=True)
def gelu_tanh_bias_backward(x, bias, dy, dx, sums):
    """As for the exact one."""
    for block in prange(len(sums)):
        total = sums[block]
        total[:] = ZERO
        for row in range(block * BLOCK, min((block + 1) * BLOCK, len(x))):
            xs, dys, dxs = x[row], dy[row], dx[row]
            for j in range(bias.size):
                dxs[j] = dys[j] * by_tanh_slope(xs[j] + bias[j])
            for j in range(bias.size):
                total[j] += dxs[j]


@compiled(elementwise(1), parallel=True)
def silu_forward(x, y):
    """y = x σ(x)"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = xs[i] * logistic(xs[i])


@compiled(elementwise(2), parallel=True)
def silu_backward(x, dy, dx):
    """dx = dy (σ + x σ (1 - σ))"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, dys, dxs = x[here], dy[here], dx[here]
        for i in range(xs.size):
            e = exp(-xs[i])
            s = ONE / (ONE + e)
            dxs[i] = dys[i] * (s + xs[i] * (s * (e * s)))  # 1 - σ = e σ


@compiled(elementwise(2), parallel=True)
def swiglu_forward(gate, up, y):
    """y = g σ(g) u"""
    for piece in prange((gate.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        gs, us, ys = gate[here], up[here], y[here]
        for i in range(gs.size):
            ys[i] = gs[i] * logistic(gs[i]) * us[i]


@compiled(elementwise(3, 2), parallel=True)
def swiglu_backward(gate, up, dy, dgate, dup):
    """du = dy g σ;  dg = dy u (σ + g σ (1 - σ)), σ = σ(g)"""
    for piece in prange((gate.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        gs, us, dys, dgs, dus = gate[here], up[here], dy[here], dgate[here], dup[here]
        for i in range(gs.size):
            e = exp(-gs[i])
            s = ONE / (ONE + e)
            dus[i] = dys[i] * (gs[i] * s)
            dgs[i] = dys[i] * us[i] * (s + gs[i] * (s * (e * s)))


def is_float32(*arrays):
    return all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in arrays)


def flatten(x):
    """x as one row of memory; a copy where it is not, or where it is read-only, which the signatures do not know."""
    return (x if x.flags.carray else np.require(x, requirements="CAW")).reshape(-1)


GELU = {
    "none": (gelu_forward, gelu_backward, gelu_bias_forward, gelu_bias_backward),
    "tanh": (gelu_tanh_forward, gelu_tanh_backward, gelu_tanh_bias_forward, gelu_tanh_bias_backward),
}


@gelu.kernel("numba")
@in_float32
def gelu_kernel(x, bias=None, *, approximate="none"):
    if not is_float32(x) or approximate not in GELU:
        return NotImplemented
    forward, backward, with_bias, backward_with_bias = GELU[approximate]
    if bias is not None:
        return gelu_of_rows(with_bias, backward_with_bias, x, bias)
    shape, xs = x.shape, flatten(x)
    y = np.empty_like(xs)
    launch(forward, xs, y)

    def vjp(dy):
        dx = np.empty_like(xs)
        launch(backward, xs, flatten(dy), dx)
        return dx.reshape(shape), None

    return y.reshape(shape), vjp


def gelu_of_rows(forward, backward, x, bias):
    if not is_float32(bias) or x.size == 0 or bias.shape != x.shape[-1:]:
        return NotImplemented
    shape, b = x.shape, flatten(bias)
    xs = flatten(x).reshape(-1, b.size)
    y = np.empty_like(xs)
    launch(forward, xs, b, y)

    def vjp(dy):
        dx, sums = np.empty_like(xs), np.empty((-(-len(xs) // BLOCK), b.size), np.float32)
        launch(backward, xs, b, flatten(dy).reshape(xs.shape), dx, sums)
        return dx.reshape(shape), sums.sum(0)

    return y.reshape(shape), vjp


@silu.kernel("numba")
@in_float32
def silu_kernel(x):
    if not is_float32(x):
        return NotImplemented
    shape, xs = x.shape, flatten(x)
    y = np.empty_like(xs)
    launch(silu_forward, xs, y)

    def vjp(dy):
        dx = np.empty_like(xs)
        launch(silu_backward, xs, flatten(dy), dx)
        return (dx.reshape(shape),)

    return y.reshape(shape), vjp


@swiglu.kernel("numba")
@in_float32
def swiglu_kernel(gate, up):
    if not is_float32(gate, up) or gate.shape != up.shape:
        return NotImplemented
    shape, gs, us = gate.shape, flatten(gate), flatten(up)
    y = np.empty_like(gs)
    launch(swiglu_forward, gs, us, y)

    def vjp(dy):
        dgate, dup = np.empty_like(gs), np.empty_like(us)
        launch(swiglu_backward, gs, us, flatten(dy), dgate, dup)
        return dgate.reshape(shape), dup.reshape(shape)

    return y.reshape(shape), vjp

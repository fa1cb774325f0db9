"""An optimizer's rules over flat memory, each in one pass: what a step costs is reading and writing its arrays once."""

import math

import numpy as np
from numba import boolean, float32, float64, prange, void

from autograd.backends.numba.activation import flat, is_float32
from autograd.backends.numba.building import PIECE, compiled
from autograd.backends.numba.formulas import f32
from autograd.backends.numba.launch import launch
from autograd.kernels import for_rule


@compiled(void(*[flat] * 4, *[float32] * 8), parallel=True)
def adamw_step(p, g, m, v, keep, beta1, rest1, beta2, rest2, unbias, eps, rate):
    """m <- β1 m + (1 - β1) g;  v <- β2 v + (1 - β2) g²;  p <- (1 - lr λ) p - rate m / (√v unbias + eps)"""
    for piece in prange((p.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        ps, gs, ms, vs = p[here], g[here], m[here], v[here]
        for i in range(ps.size):
            ms[i] = beta1 * ms[i] + rest1 * gs[i]
            vs[i] = beta2 * vs[i] + rest2 * (gs[i] * gs[i])
            ps[i] = keep * ps[i] - rate * (ms[i] / (math.sqrt(vs[i]) * unbias + eps))


@compiled(void(*[flat] * 3, *[float32] * 3, boolean), parallel=True)
def sgd_step(p, g, velocity, rate, momentum, decay, nesterov):
    """d = g + λ p;  velocity <- μ velocity + d;  p <- p - lr velocity, or p - lr (d + μ velocity)"""
    for piece in prange((p.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        ps, gs, velocities = p[here], g[here], velocity[here]
        for i in range(ps.size):
            d = gs[i] + decay * ps[i]
            velocities[i] = momentum * velocities[i] + d
            ps[i] -= rate * (d + momentum * velocities[i] if nesterov else velocities[i])


@compiled(void(*[flat] * 3, *[float32] * 6), parallel=True)
def lion_step(p, g, m, keep, beta1, rest1, beta2, rest2, rate):
    """c = β1 m + (1 - β1) g;  m <- β2 m + (1 - β2) g;  p <- (1 - lr λ) p - lr sign c"""
    for piece in prange((p.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        ps, gs, ms = p[here], g[here], m[here]
        for i in range(ps.size):
            c = beta1 * ms[i] + rest1 * gs[i]
            ms[i] = beta2 * ms[i] + rest2 * gs[i]
            ps[i] = keep * ps[i] - rate * np.sign(c)


@compiled(void(flat, float64[::1]), parallel=True)
def sum_squares(x, sums):
    """sums[k] = Σ x_i² of piece k. In float64: the square of any float32 is exact there."""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        xs, total = x[piece * PIECE : (piece + 1) * PIECE], float64(0)
        for i in range(xs.size):
            total += float64(xs[i]) * float64(xs[i])
        sums[piece] = total


@compiled(void(flat, float32), parallel=True)
def multiply(x, factor):
    """x <- factor x"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        xs = x[piece * PIECE : (piece + 1) * PIECE]
        for i in range(xs.size):
            xs[i] *= factor


def accepts(*arrays):
    """Whether these are float32 rows of memory, equally long, that may be written."""
    return is_float32(*arrays) and all(x.ndim == 1 and x.flags.carray and x.size == arrays[0].size for x in arrays)


@for_rule("adamw", "numba")
def adamw_kernel(p, g, m, v, *, step, learning_rate, betas, eps, weight_decay):
    if not accepts(p, g, m, v):
        return NotImplemented
    beta1, beta2 = betas
    unbias, rate = 1 / math.sqrt(1 - beta2**step), learning_rate / (1 - beta1**step)
    numbers = (1 - learning_rate * weight_decay, beta1, 1 - beta1, beta2, 1 - beta2, unbias, eps, rate)
    launch(adamw_step, p, g, m, v, *map(f32, numbers))


@for_rule("sgd", "numba")
def sgd_kernel(p, g, velocity, *, learning_rate, momentum, nesterov, weight_decay):
    if not accepts(p, g, velocity):
        return NotImplemented
    launch(sgd_step, p, g, velocity, *map(f32, (learning_rate, momentum, weight_decay)), nesterov)


@for_rule("lion", "numba")
def lion_kernel(p, g, m, *, learning_rate, betas, weight_decay):
    if not accepts(p, g, m):
        return NotImplemented
    beta1, beta2 = betas
    numbers = (1 - learning_rate * weight_decay, beta1, 1 - beta1, beta2, 1 - beta2, learning_rate)
    launch(lion_step, p, g, m, *map(f32, numbers))


@for_rule("sum_of_squares", "numba")
def sum_of_squares_kernel(x):
    if not accepts(x):
        return NotImplemented
    sums = np.empty(-(-x.size // PIECE))
    launch(sum_squares, x, sums)
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as in the reference: training stops
        return f32(sums.sum())


@for_rule("scale", "numba")
def scale_kernel(x, *, factor):
    if not accepts(x):
        return NotImplemented
    launch(multiply, x, f32(factor))

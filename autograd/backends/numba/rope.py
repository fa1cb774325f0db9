"""Rotary position embedding, one pass over the heads in whatever order they lie in memory."""

import functools

import numpy as np
from numba import boolean, float32, int64, prange, void

from autograd.backends.numba.activation import flatten
from autograd.backends.numba.building import compiled
from autograd.backends.numba.halves import alike, rounded, widened
from autograd.backends.numba.launch import launch
from autograd.ops.rope import angles, rope

rows = float32[:, ::1]


@compiled(void(rows, rows, rows, int64, int64, int64, boolean, rows), parallel=True)
def turn(x, cos, sin, inner, T, outer, half_layout, y):
    """(a, b) -> (a cos - b sin, b cos + a sin). Row i of x stands at time i / inner mod T of batch entry i / outer."""
    for row in prange(len(x)):
        xs, ys = x[row], y[row]
        angle = row // outer * T + row // inner % T
        cs, ss = cos[angle], sin[angle]
        half = cs.size
        if half_layout:
            for j in range(half):
                a, b = xs[j], xs[half + j]
                ys[j] = a * cs[j] - b * ss[j]
                ys[half + j] = b * cs[j] + a * ss[j]
        else:
            for j in range(half):
                a, b = xs[2 * j], xs[2 * j + 1]
                ys[2 * j] = a * cs[j] - b * ss[j]
                ys[2 * j + 1] = b * cs[j] + a * ss[j]


@functools.lru_cache(maxsize=4)
def table(positions, D, theta):
    """cos and sin of the angles as float32 (positions, D / 2); all layers of a model ask for the same ones."""
    cos, sin = angles(np.frombuffer(positions, np.int64), D, theta, np)
    return cos.astype(np.float32), sin.astype(np.float32)


def rotate(x, cos, sin, layout):
    """x (..., T, D) -> y in the same layout in memory; heads that were split from rows of features lie T first."""
    by_time = x.ndim == 4 and not x.flags.c_contiguous and x.transpose(0, 2, 1, 3).flags.c_contiguous
    lies = x.transpose(0, 2, 1, 3) if by_time else x
    xs, T = flatten(lies).reshape(-1, x.shape[-1]), x.shape[-2]
    y = np.empty_like(xs)
    outer = len(xs) // (len(cos) // T)
    launch(turn, xs, cos, sin, x.shape[1] if by_time else 1, T, outer, layout == "half", y)
    y = y.reshape(lies.shape)
    return y.transpose(0, 2, 1, 3) if by_time else y


@rope.kernel("numba")
def rope_kernel(x, *, positions=None, theta=10000.0, layout="half"):
    if not alike(x) or x.size == 0 or x.ndim < 2 or x.shape[-1] % 2 or layout not in ("half", "interleaved"):
        return NotImplemented
    positions = np.arange(x.shape[-2]) if positions is None else np.asarray(positions)
    each = x.ndim == 4 and positions.shape == (x.shape[0], x.shape[2])  # every batch entry at its own positions
    if positions.dtype.kind not in "iu" or not (each or positions.shape == (x.shape[-2],)):
        return NotImplemented
    cos, sin = table(positions.astype(np.int64).tobytes(), x.shape[-1], theta)

    def turned(z, sin):
        return rounded(rotate(widened(z), cos, sin, layout), z.dtype)

    def vjp(dy):
        return (turned(dy, -sin),)

    return turned(x, sin), vjp

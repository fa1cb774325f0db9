"""Dropout in one pass. Saves the seeds only: backward draws the same numbers again."""

import numpy as np
from numba import float32, prange, uint32, void

from autograd.backends.numba.activation import flatten
from autograd.backends.numba.building import PIECE, compiled, inlined
from autograd.backends.numba.formulas import ZERO
from autograd.backends.numba.halves import alike, rounded, widened
from autograd.backends.numba.launch import launch
from autograd.ops.dropout import dropout
from autograd.ops.dropout import mix as mix_all

rows = float32[:, ::1]


@inlined
def mix(h):
    """The finalizer of MurmurHash3. Products of uint32 are uint64 to Numba and are cut."""
    h = uint32(h ^ (h >> uint32(16)))
    h = uint32(h * uint32(0x85EBCA6B))
    h = uint32(h ^ (h >> uint32(13)))
    h = uint32(h * uint32(0xC2B2AE35))
    return uint32(h ^ (h >> uint32(16)))


@compiled(void(rows, uint32[::1], uint32, float32, rows), parallel=True)
def scale_kept(x, states, threshold, scale, y):
    """y = x m / (1 - rate), m = [mix(position · 0x9E3779B9 + state) ≥ threshold], one state for each row of x"""
    n = x.shape[1]
    pieces = (n + PIECE - 1) // PIECE
    for k in prange(len(x) * pieces):
        row, start = k // pieces, k % pieces * PIECE
        xs, ys = x[row][start : start + PIECE], y[row][start : start + PIECE]
        state = uint32(states[row] + uint32(uint32(start) * uint32(0x9E3779B9)))
        for i in range(xs.size):
            bits = mix(uint32(uint32(uint32(i) * uint32(0x9E3779B9)) + state))
            ys[i] = xs[i] * (scale if bits >= threshold else ZERO)


@dropout.kernel("numba")
def dropout_kernel(x, *, rate, seed):
    seeds = np.asarray(seed).reshape(-1).astype(np.uint64)
    if not alike(x) or x.size == 0 or not 0 <= rate < 1 or seeds.size == 0 or x.size % seeds.size:
        return NotImplemented
    low, high = (seeds & np.uint64(0xFFFFFFFF)).astype(np.uint32), (seeds >> np.uint64(32)).astype(np.uint32)
    states = mix_all(mix_all(low) ^ high)
    threshold, scale = np.uint32(int(rate * 2**32)), np.float32(1 / (1 - rate))

    def times_factor(z):
        zs = flatten(widened(z)).reshape(len(states), -1)
        y = np.empty_like(zs)
        launch(scale_kept, zs, states, threshold, scale, y)
        return rounded(y, z.dtype).reshape(z.shape)

    def vjp(dy):
        return (times_factor(dy),)

    return times_factor(x), vjp

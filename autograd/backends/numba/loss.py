"""Cross-entropy. Saves the logits, which are there, and two numbers a row; backward takes the exponentials again.

The reference saves the probabilities, an array as large as the logits, whose writing and reading cost more than that.
Where the logits of some rows are made for the loss alone, they turn into their own gradient where they lie.
"""

import math

import numpy as np
from numba import float32, float64, int64, prange, void

from autograd.arrays import is_half
from autograd.backends.numba import blas
from autograd.backends.numba.activation import flatten
from autograd.backends.numba.building import compiled
from autograd.backends.numba.formulas import ZERO, exp
from autograd.backends.numba.halves import alike, rounded, widened
from autograd.backends.numba.launch import launch
from autograd.backends.numba.softmax import as_rows, largest
from autograd.context import needs
from autograd.ops.loss import check, cross_entropy, linear_cross_entropy, pieces

rows, column = float32[:, ::1], float32[::1]


@compiled(void(rows, int64[::1], float64, float64[::1], column, column), parallel=True)
def loss_forward(logits, targets, smoothing, losses, tops, totals):
    """L = log total - (1 - ε) s_target - ε mean s, s = x - max x, total = Σ exp(s); 0 where the target is -1"""
    for row in prange(len(logits)):
        losses[row] = 0
        if targets[row] >= 0:
            xs = logits[row]
            top, total = largest(xs), ZERO
            for j in range(xs.size):
                total += exp(xs[j] - top)
            loss = math.log(float64(total)) - (1 - smoothing) * (float64(xs[targets[row]]) - float64(top))
            if smoothing:
                s = ZERO
                for j in range(xs.size):
                    s += xs[j] - top
                loss -= smoothing * float64(s) / xs.size
            losses[row], tops[row], totals[row] = loss, top, total


@compiled(void(rows, int64[::1], float64, column, column, column, rows), parallel=True)
def loss_backward(logits, targets, smoothing, tops, totals, dlosses, dlogits):
    """dx = dL (p - q), p = exp(s) / total, q = (1 - ε) [target] + ε / V"""
    for row in prange(len(logits)):
        xs, dxs = logits[row], dlogits[row]
        if targets[row] >= 0:
            top, scale = tops[row], dlosses[row] / totals[row]
            spread = float32(dlosses[row] * smoothing / xs.size)
            for j in range(xs.size):
                dxs[j] = exp(xs[j] - top) * scale - spread
            dxs[targets[row]] -= float32((1 - smoothing) * dlosses[row])
        else:
            for j in range(xs.size):
                dxs[j] = ZERO


@cross_entropy.kernel("numba")
def cross_entropy_kernel(logits, targets, *, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    if not alike(logits) or logits.size == 0:
        return NotImplemented
    check(logits.shape, targets, ignore_index, reduction)
    xs, flat = as_rows(widened(logits)), targets.reshape(-1)
    target = np.where(flat != ignore_index, flat, -1).astype(np.int64)
    losses, (tops, totals) = np.empty(len(xs)), np.empty((2, len(xs)), np.float32)
    launch(loss_forward, xs, target, label_smoothing, losses, tops, totals)
    count = max(int((target >= 0).sum()), 1) if reduction == "mean" else 1
    loss = losses.reshape(targets.shape) if reduction == "none" else losses.sum() / count

    def vjp(dloss):
        xs = as_rows(widened(logits))
        dlosses = np.empty(len(xs), np.float32)
        dlosses[:] = dloss.reshape(-1) / np.float32(count)
        dlogits = np.empty_like(xs)
        launch(loss_backward, xs, target, label_smoothing, tops, totals, dlosses, dlogits)
        return rounded(dlogits.reshape(logits.shape), logits.dtype), None

    return np.asarray(loss, np.float32), vjp


@compiled(void(rows, int64[::1], float64, column, float64[::1]), parallel=True)
def loss_in_place(logits, targets, smoothing, dlosses, losses):
    """The loss of each row, whose logits become dL (p - q). One array is read and written: a second name for it, and
    the loop could not be vectorized.
    """
    for row in prange(len(logits)):
        xs, target = logits[row], targets[row]
        if target >= 0:
            top, total, s = largest(xs), ZERO, ZERO
            loss = -(1 - smoothing) * (float64(xs[target]) - float64(top))
            if smoothing:
                for j in range(xs.size):
                    s += xs[j] - top
                loss -= smoothing * float64(s) / xs.size
            for j in range(xs.size):
                xs[j] = exp(xs[j] - top)
                total += xs[j]
            losses[row] = loss + math.log(float64(total))
            scale, spread = dlosses[row] / total, float32(dlosses[row] * smoothing / xs.size)
            for j in range(xs.size):
                xs[j] = xs[j] * scale - spread
            xs[target] -= float32((1 - smoothing) * dlosses[row])
        else:
            losses[row] = 0
            for j in range(xs.size):
                xs[j] = ZERO


@linear_cross_entropy.kernel("numba")
def linear_cross_entropy_kernel(
    x, weight, targets, *, ignore_index=-100, label_smoothing=0.0, reduction="mean", chunk=2**23
):
    if not alike(x, weight) or x.size == 0 or weight.size == 0 or x.shape[-1] != weight.shape[1]:
        return NotImplemented
    check((*x.shape[:-1], len(weight)), targets, ignore_index, reduction)
    xs, table = np.ascontiguousarray(x).reshape(-1, x.shape[-1]), np.ascontiguousarray(weight)
    flat, ones = targets.reshape(-1), np.ones(len(xs), np.float32)
    target = np.where(flat != ignore_index, flat, -1).astype(np.int64)
    if reduction == "none":
        return loss_of_each_row(xs, table, target, label_smoothing, chunk, x.shape, targets.shape)
    losses, dx_of_sum, dweight_of_sum = in_pieces(xs, table, target, label_smoothing, ones, needs(), chunk)
    count = np.float32(max(int((target >= 0).sum()), 1) if reduction == "mean" else 1)
    shape, dtype = x.shape, x.dtype

    def dx(dloss):
        # loss = Σ L / count
        return rounded(dx_of_sum * (dloss / count), dtype).reshape(shape)

    def dweight(dloss, out=None):
        # loss = Σ L / count
        if is_half(dtype):
            return rounded(dweight_of_sum * (dloss / count), dtype)
        return np.multiply(dweight_of_sum, dloss / count, out=out)

    vjp = (dx, dweight, None)
    return np.asarray(losses.sum() / count, np.float32), vjp


def loss_of_each_row(xs, table, target, smoothing, chunk, x_shape, targets_shape):
    wanted, nothing = needs(), np.zeros(len(xs), np.float32)
    losses, _, _ = in_pieces(xs, table, target, smoothing, nothing, (False, False), chunk)

    def vjp(dloss):
        dlosses = flatten(dloss)
        _, dx, dweight = in_pieces(xs, table, target, smoothing, dlosses, wanted, chunk)
        dx = None if dx is None else rounded(dx, xs.dtype).reshape(x_shape)
        return dx, rounded(dweight, table.dtype), None

    return losses.reshape(targets_shape).astype(np.float32), vjp


def in_pieces(xs, table, target, smoothing, dlosses, wanted, chunk):
    """As in the reference: the loss of every row; and dx and dW of Σ dL_i L_i, where they are wanted (else None).

    In float32 throughout, also where xs and table are in half precision.
    """
    xs, table = widened(xs), widened(table)
    losses, (dx_wanted, dweight_wanted) = np.empty(len(xs)), wanted[:2]
    dx = np.empty_like(xs) if dx_wanted else None
    dweight = np.empty_like(table) if dweight_wanted else None
    parts = pieces(len(xs), len(table), chunk)
    room = np.empty((min(parts[0].stop, len(xs)), len(table)), np.float32)
    for piece in parts:
        rows = xs[piece]
        logits = blas.product(rows, table.T, out=room[: len(rows)])
        launch(loss_in_place, logits, target[piece], smoothing, dlosses[piece], losses[piece])
        # logits = rows @ weight.T
        if dx_wanted:
            blas.product(logits, table, out=dx[piece])
        if dweight_wanted:
            blas.product(logits.T, rows, out=dweight, accumulate=piece.start > 0)
    return losses, dx, dweight

"""Cross-entropy. Saves the logits, which are there, and two numbers a row; backward takes the exponentials again.

The reference saves the probabilities, an array as large as the logits, whose writing and reading cost more than that.
"""

import math

import numpy as np
from numba import float32, float64, int64, prange, void

from autograd.backends.numba.activation import is_float32
from autograd.backends.numba.building import compiled
from autograd.backends.numba.formulas import ZERO, exp
from autograd.backends.numba.launch import launch
from autograd.backends.numba.softmax import as_rows, largest
from autograd.ops.loss import check, cross_entropy

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
    if not is_float32(logits) or logits.size == 0:
        return NotImplemented
    check(logits, targets, ignore_index, reduction)
    xs, flat = as_rows(logits), targets.reshape(-1)
    target = np.where(flat != ignore_index, flat, -1).astype(np.int64)
    losses, (tops, totals) = np.empty(len(xs)), np.empty((2, len(xs)), np.float32)
    launch(loss_forward, xs, target, label_smoothing, losses, tops, totals)
    count = max(int((target >= 0).sum()), 1) if reduction == "mean" else 1
    loss = losses.reshape(targets.shape) if reduction == "none" else losses.sum() / count
    shape = logits.shape

    def vjp(dloss):
        dlosses = np.empty(len(xs), np.float32)
        dlosses[:] = dloss.reshape(-1) / np.float32(count)
        dlogits = np.empty_like(xs)
        launch(loss_backward, xs, target, label_smoothing, tops, totals, dlosses, dlogits)
        return dlogits.reshape(shape), None

    return np.asarray(loss, np.float32), vjp

"""Cross-entropy: how surprised the model is by the next token."""

import numpy as np

from autograd.arrays import widen, xp_of
from autograd.context import context, needs
from autograd.engine import primitive
from autograd.ops.elementwise import like


@primitive
def cross_entropy(logits, targets, *, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """Negative log-probability of the targets, in nats.

    Equation   L_i = -Σ_v q_iv log p_iv,  p = softmax(logits),  q_iv = (1 - ε) [v = target_i] + ε / V
               "sum": Σ_i L_i;  "mean": Σ_i L_i / n over the n targets that are not ignored;  "none": L (...)
    Shapes     logits (..., V), targets (...) whole numbers; loss () or, with "none", (...)
    Gradient   dlogits_i = dL_i (p_i - q_i), 0 where ignored.  With "mean" every dL_i is dL / n
    Saves      p, target, rows (0 … N-1), kept
    Cost       one exp and four passes forward, two passes backward
    Precision  inside at least float32; the loss is at least float32
    Errors     ValueError for a target outside 0 … V-1 that is not ignore_index, or an unknown reduction.
               Without any target left the loss is 0 and so is the gradient, never NaN
    Source     label smoothing: Szegedy et al. 2016
    """
    xp = xp_of(logits)
    check(logits.shape, targets, ignore_index, reduction)
    V, flat = logits.shape[-1], targets.reshape(-1)
    kept = flat != ignore_index
    rows, target = xp.arange(flat.size), xp.where(kept, flat, 0)
    s = widen(logits).reshape(-1, V)
    s = s - s.max(-1, keepdims=True)
    target_s, mean_s = s[rows, target], s.mean(-1) if label_smoothing else 0
    p = xp.exp(s, out=s)
    total = p.sum(-1, keepdims=True)
    # -log p_v = log(total) - s_v
    L = xp.log(total[:, 0]) - (1 - label_smoothing) * target_s - label_smoothing * mean_s
    L = xp.where(kept, L, 0)
    count = max(int(kept.sum()), 1) if reduction == "mean" else 1
    loss = L.reshape(targets.shape) if reduction == "none" else L.sum() / count
    if needs()[0]:
        p /= total
    shape, dtype = logits.shape, logits.dtype

    def vjp(dloss):
        dL = xp.where(kept, dloss.reshape(-1) / count, 0)[:, None]
        # L_i = -Σ_v q_iv log p_iv
        dlogits = p * dL
        dlogits[rows, target] -= (1 - label_smoothing) * dL[:, 0]
        if label_smoothing:
            dlogits -= dL * (label_smoothing / V)
        return dlogits.reshape(shape).astype(dtype, copy=False), None

    return loss, vjp


@primitive
def linear_cross_entropy(x, weight, targets, *, ignore_index=-100, label_smoothing=0.0, reduction="mean", chunk=2**23):
    """The cross-entropy of `linear(x, weight)` without ever holding all logits.

    At most `chunk` of them are there at a time, those of one row at least. While they are, they give their part of the
    gradients too, as if dL were 1: for "mean" and "sum" dL is one number, and all that is left for backward is to
    multiply. With "none" every row has its own, and backward goes through the pieces again.

    Equation   L = cross_entropy(logits, targets), logits = x Wᵀ
    Shapes     x (..., C), weight (V, C), targets (...) whole numbers; loss () or, with "none", (...)
    Gradient   dlogits_i = dL_i (p_i - q_i) as in `cross_entropy`;  dx = dlogits W;  dW = dlogitsᵀ x, summed over rows
    Saves      dx_of_sum and dweight_of_sum ("mean" and "sum"), or rows, weight and target ("none")
    Cost       2 N V C flops and, where they are wanted, as many for dx and for dW; with "none" 2 N V C once more
    Precision  inside at least float32, and so is the loss; gradients are rounded once, when they are multiplied by dL
    Errors     as in `cross_entropy`
    Source     pieces with early gradients: Hsu et al. 2024 (Liger Kernel)
    """
    check((*x.shape[:-1], len(weight)), targets, ignore_index, reduction)
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    if reduction == "none":
        return loss_of_each_row(x, weight, targets, options, chunk)
    xp, target = xp_of(x), targets.reshape(-1)
    rows = x.reshape(target.size, x.shape[-1])
    L, dx_of_sum, dweight_of_sum = in_pieces(rows, weight, target, None, needs(), options, chunk)
    count = max(int((target != ignore_index).sum()), 1) if reduction == "mean" else 1
    (shape, x_dtype), weight_dtype = like(x), weight.dtype

    def dx(dloss):
        # loss = Σ L / count
        return (dx_of_sum * (dloss / count)).reshape(shape).astype(x_dtype, copy=False)

    def dweight(dloss, out=None):
        # loss = Σ L / count
        return xp.multiply(dweight_of_sum, dloss / count, out=out).astype(weight_dtype, copy=False)

    vjp = (dx, dweight, None)
    return L.sum() / count, vjp


def loss_of_each_row(x, weight, targets, options, chunk):
    target, wanted = targets.reshape(-1), needs()
    rows = x.reshape(target.size, x.shape[-1])
    L, _, _ = in_pieces(rows, weight, target, None, (False, False), options, chunk)
    x_like, weight_like = like(x), like(weight)

    def vjp(dloss):
        # L_i = cross_entropy(rows_i Wᵀ, target_i)
        _, *gradients = in_pieces(rows, weight, target, dloss.reshape(-1), wanted, options, chunk)
        for i, (shape, dtype) in enumerate((x_like, weight_like)):
            if wanted[i]:
                gradients[i] = gradients[i].reshape(shape).astype(dtype, copy=False)
        return *gradients, None

    return L.reshape(targets.shape), vjp


def in_pieces(rows, weight, target, dL, wanted, options, chunk):
    """The loss L_i of every row; and dx and dW of Σ dL_i L_i, where they are wanted (else None). dL: None for ones."""
    xp, rows, weight = xp_of(rows), widen(rows), widen(weight)
    dtype = np.result_type(rows.dtype, weight.dtype)
    dL = xp.ones(len(rows), dtype) if dL is None else dL
    dx_wanted, dweight_wanted = wanted[:2]
    L = xp.empty(len(rows), dtype)
    dx = xp.empty(rows.shape, dtype) if dx_wanted else None
    dweight = xp.zeros(weight.shape, dtype) if dweight_wanted else None
    for piece in pieces(len(rows), len(weight), chunk):
        dL_here = dL[piece] if any(wanted) else None
        L[piece], dlogits = loss_and_dlogits(rows[piece], weight, target[piece], dL_here, options)
        # logits = rows @ weight.T
        if dx_wanted:
            dx[piece] = dlogits @ weight
        if dweight_wanted:
            dweight += dlogits.T @ rows[piece]
    return L, dx, dweight


def loss_and_dlogits(rows, weight, target, dL, options):
    """L_i of some rows and, unless dL is None, the gradient of Σ dL_i L_i by their logits: dL_i (p_i - q_i)."""
    with context.set(needs=(dL is not None, False)):
        L, vjp = cross_entropy.reference(rows @ weight.T, target, reduction="none", **options)
    return L, None if dL is None else vjp(dL)[0]


def pieces(n, V, chunk):
    """Slices of n rows of at most `chunk` logits; more than 64 rows are made a multiple of 64, which suits products."""
    step = max(chunk // max(V, 1), 1)
    if step > 64:
        step -= step % 64
    return [slice(start, start + step) for start in range(0, n, step)]


def check(shape, targets, ignore_index, reduction):
    """Targets must be whole numbers that name a column of the logits, which have this shape, or ignore_index."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy: reduction is "mean", "sum" or "none", not {reduction!r}')
    if not hasattr(targets, "dtype"):
        raise TypeError(f"cross_entropy: targets must be an array of integers, not {type(targets).__name__}")
    if targets.shape != tuple(shape[:-1]):
        raise ValueError(
            f"cross_entropy takes logits (..., V) and targets (...); got {list(shape)} and {list(targets.shape)}"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: targets must be integers, not {targets.dtype}")
    V = shape[-1]
    wrong = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
    if wrong.any():
        raise ValueError(
            f"cross_entropy: target {int(targets[wrong].reshape(-1)[0])} is neither in 0 … {V - 1} "
            f"nor ignore_index ({ignore_index})"
        )

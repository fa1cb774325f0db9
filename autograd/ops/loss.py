"""Cross-entropy: how surprised the model is by the next token."""

from autograd.arrays import widen, xp_of
from autograd.context import needs
from autograd.engine import primitive


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
    check(logits, targets, ignore_index, reduction)
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


def check(logits, targets, ignore_index, reduction):
    """Targets must be whole numbers that name a column of the logits, or ignore_index."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy: reduction is "mean", "sum" or "none", not {reduction!r}')
    if not hasattr(targets, "dtype"):
        raise TypeError(f"cross_entropy: targets must be an array of integers, not {type(targets).__name__}")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy takes logits (..., V) and targets (...); got {list(logits.shape)} and {list(targets.shape)}"
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: targets must be integers, not {targets.dtype}")
    V = logits.shape[-1]
    wrong = ((targets < 0) | (targets >= V)) & (targets != ignore_index)
    if wrong.any():
        raise ValueError(
            f"cross_entropy: target {int(targets[wrong].reshape(-1)[0])} is neither in 0 … {V - 1} "
            f"nor ignore_index ({ignore_index})"
        )

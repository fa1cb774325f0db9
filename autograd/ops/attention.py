"""Attention: every query looks at every key it may see, and takes a weighted mean of their values.

In three lines, made of primitives (tests prove it equal to `attention` below, forward and backward):

    scores = matmul(q, transpose(k, axes=(0, 1, 3, 2))) / math.sqrt(D) + mask
    p = softmax(scores)
    y = matmul(p, v)

Everything that restricts what may be seen (causality, a window, documents, padding) is one additive mask: 0 where a
query may look, -inf where it may not. docs/attention.md derives the backward index by index.
"""

import math

import numpy as np

from autograd.arrays import matmul as product
from autograd.arrays import widen, xp_of
from autograd.engine import describe, primitive
from autograd.ops.linalg import swap


def attention_mask(T, S, *, causal=True, window=None, segments=None, xp=np):
    """The additive mask, (T, S) or (B, 1, T, S): 0 where query t may see key s, -inf where not; None if all may.

    T queries stand at the end of S keys: query t has position S - T + t. causal: no key after the query. window: only
    the last `window` keys up to the query. segments (B, S): whole numbers; a query sees only keys of its own segment,
    and segment -1 is padding, which sees and shows nothing.
    """
    query, key = xp.arange(S - T, S)[:, None], xp.arange(S)[None, :]
    visible = xp.ones((T, S), bool)
    if causal:
        visible &= key <= query
    if window is not None:
        visible &= key > query - window
    if segments is not None:
        own, other = segments[:, None, -T:, None], segments[:, None, None, :]
        visible = visible & (own == other) & (own != -1)
    return None if visible.all() else xp.where(visible, np.float32(0), np.float32(-np.inf))


@primitive
def attention(q, k, v, *, causal=True, window=None, segments=None, bias=None):
    """Scaled dot-product attention with masks and grouped heads.

    Equation   s = q kᵀ / √D + mask + bias;  p = softmax(s);  y = p v
    Shapes     q, y (B, H, T, D);  k, v (B, G, S, D), G divides H, S >= T: query t stands at key S - T + t
               segments (B, S);  bias broadcast to (B, H, T, S), not differentiated
    Gradient   dv = pᵀ dy;  dp = dy vᵀ;  ds = p (dp - Σ_s dp p);  dq = ds k / √D;  dk = dsᵀ q / √D
    Saves      rows (q, as one matrix for each key head), k, v, p
    Cost       4 B H T S D flops forward, 8 backward, B H T S probabilities kept
    Precision  scores and softmax in at least float32
    Errors     ValueError for shapes that do not fit; a query that may see nothing gets 0, never NaN
    Source     Vaswani et al. 2017, equation 1; grouped heads: Ainslie et al. 2023
    """
    check_shapes(q, k, v)
    check_masks(len(q), k.shape[2], window, segments)
    xp = xp_of(q)
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    scale = 1 / math.sqrt(D)
    mask = attention_mask(T, S, causal=causal, window=window, segments=segments, xp=xp)
    # The H/G query heads of one key head ask the same keys: more rows of one matrix.
    rows = q.reshape(B, G, H // G * T, D)
    s = product(widen(rows), widen(swap(k))).reshape(B, H, T, S)
    s *= scale
    if bias is not None:
        s += bias
    if mask is not None:
        s += mask
    p = softmax_rows(s, xp).astype(q.dtype, copy=False).reshape(B, G, H // G * T, S)
    y = product(p, v).reshape(B, H, T, D)

    def vjp(dy):
        dy = dy.reshape(rows.shape)
        # y = p v
        dv = product(swap(p), dy)
        dp = product(widen(dy), widen(swap(v)))
        # p = softmax(s)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        # s = qk scale, qk = rows kᵀ
        dqk = (ds * scale).astype(p.dtype, copy=False)
        dq = product(dqk, k).reshape(B, H, T, D)
        dk = product(swap(dqk), rows)
        return dq.astype(rows.dtype, copy=False), dk.astype(k.dtype, copy=False), dv.astype(v.dtype, copy=False)

    return y, vjp


def softmax_rows(s, xp):
    """Softmax of the last axis, in place; a row that is -inf throughout becomes 0."""
    top = s.max(-1, keepdims=True)
    top[top == -np.inf] = 0
    s -= top
    xp.exp(s, out=s)
    total = s.sum(-1, keepdims=True)
    total[total == 0] = 1
    s /= total
    return s


def check_shapes(q, k, v):
    """q (B, H, T, D) with k and v (B, G, S, D): G divides H, S >= T."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "attention takes q (B, H, T, D) and k, v (B, G, S, D); "
            f"got {list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"attention: {q.shape[1]} query heads cannot share {k.shape[1]} key heads evenly")
    if k.shape[2] < q.shape[2]:
        raise ValueError(f"attention: {q.shape[2]} queries stand at the end of only {k.shape[2]} keys")


def check_masks(B, S, window, segments):
    """A window holds the query's own key at least; segments number every key of every sample."""
    if window is not None and window < 1:
        raise ValueError(f"attention: a window counts keys up to the query's own, so it is at least 1, not {window}")
    if segments is not None and getattr(segments, "shape", None) != (B, S):
        raise ValueError(f"attention: segments must be an array (B, S) = [{B}, {S}], not {describe(segments)}")

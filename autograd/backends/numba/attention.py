"""Attention by blocks of queries: the scores of a block at a time, never those of all queries.

Forward keeps, for each query, the logarithm of its sum of exponentials (lse): then p = exp(s - lse) comes back in
backward from the scores of a block, which are computed again. Memory grows with T and not with T². Each block belongs
to one thread, and its products are BLAS's. Arrays may be views (heads in the middle of a wider matrix): only their last
axis must be contiguous. Dao et al. 2022, "FlashAttention".
"""

import math

import numpy as np
from numba import float32, int64, prange, void

from autograd.backends.numba import blas
from autograd.backends.numba.building import compiled, inlined
from autograd.backends.numba.formulas import exp, larger
from autograd.ops.attention import attention, check_masks, check_shapes

SHORT, LONG = 64, 128  # queries in a block, up to 512 keys and beyond: the scores of a block should stay in the cache
# A view of shape (B, H, T, D) is passed as its address and the elements between its batches, heads and rows.
VIEW = (int64, int64, int64, int64)
SHAPE = (int64, int64, int64)  # G, S, D
MASK = (int64, int64, int64[:, ::1])  # causal, window (S + T where there is none), segments (of no samples if none)

NEVER = np.float32(-np.inf)


@inlined
def hide(row, at, causal, window, segments, b):
    """-inf for the keys that a query at this position may not see, as `attention_mask` has it."""
    for j in range(min(max(at - window + 1, 0), row.size)):
        row[j] = NEVER
    if causal:
        for j in range(at + 1, row.size):
            row[j] = NEVER
    if len(segments):
        own = segments[b, at]
        for j in range(row.size):
            row[j] = row[j] if segments[b, j] == own and own != -1 else NEVER


if blas.available:
    from autograd.backends.numba.blas import sgemm

    @compiled(void(*VIEW, *VIEW, *VIEW, *VIEW, float32[:, :, ::1], *SHAPE, *MASK, float32, int64), parallel=True)
    def forward(
        q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, y, y_b, y_h, y_t, lse,
        G, S, D, causal, window, segments, scale, rows,
    ):  # fmt: skip
        """y = softmax(scale q kᵀ + mask) v and lse (B, H, T), a block of queries at a time."""
        B, H, T = lse.shape
        blocks = (T + rows - 1) // rows
        for task in prange(B * H * blocks):
            b, h, block = task // blocks // H, task // blocks % H, task % blocks
            g, start = h // (H // G), block * rows
            n = min(rows, T - start)
            keys = S - T + start + n if causal else S  # the last query of the block sees so many
            qs, ks, vs = (
                q + 4 * (b * q_b + h * q_h + start * q_t),
                k + 4 * (b * k_b + g * k_h),
                v + 4 * (b * v_b + g * v_h),
            )
            s = np.empty((n, keys), np.float32)
            sgemm(101, 111, 112, n, keys, D, scale, qs, q_t, ks, k_t, np.float32(0), s.ctypes.data, keys)
            for i in range(n):
                at, row = S - T + start + i, s[i]
                hide(row, at, causal, window, segments, b)
                top = row[0]
                for j in range(1, keys):
                    top = larger(top, row[j])
                if top == -np.inf:  # sees nothing: p = 0, here and (since lse is infinite) in backward
                    for j in range(keys):
                        row[j] = row[j] if row[j] != row[j] else np.float32(0)  # NaN stays NaN
                    lse[b, h, start + i] = np.inf
                    continue
                total = np.float32(0)
                for j in range(keys):
                    row[j] = exp(row[j] - top)
                    total += row[j]
                over = np.float32(1) / total
                for j in range(keys):
                    row[j] *= over
                lse[b, h, start + i] = top + np.log(total)
            ys = y + 4 * (b * y_b + h * y_h + start * y_t)
            sgemm(101, 111, 111, n, D, keys, np.float32(1), s.ctypes.data, keys, vs, v_t, np.float32(0), ys, y_t)

    @compiled(
        void(*VIEW, *VIEW, *VIEW, *VIEW, *VIEW, *VIEW, *VIEW, float32[:, :, ::1], float32[:, :, ::1], *SHAPE, *MASK,
             float32, int64),
        parallel=True,
    )  # fmt: skip
    def backward(
        q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, dy, dy_b, dy_h, dy_t,
        dq, dq_b, dq_h, dq_t, dk, dk_b, dk_h, dk_t, dv, dv_b, dv_h, dv_t, lse, inner,
        G, S, D, causal, window, segments, scale, rows,
    ):  # fmt: skip
        """dq, dk, dv; inner (B, H, T) = Σ_d dy y = Σ_s dp p. One thread for each key head, whose queries add up."""
        B, H, T = lse.shape
        one, zero = np.float32(1), np.float32(0)
        blocks = (T + rows - 1) // rows
        for task in prange(B * G):
            b, g = task // G, task % G
            ks, vs = k + 4 * (b * k_b + g * k_h), v + 4 * (b * v_b + g * v_h)
            dks, dvs = dk + 4 * (b * dk_b + g * dk_h), dv + 4 * (b * dv_b + g * dv_h)
            first = zero
            for h in range(g * (H // G), (g + 1) * (H // G)):
                # From the last block, which sees all keys and so writes dk and dv whole, to the first.
                for block in range(blocks - 1, -1, -1):
                    start = block * rows
                    n = min(rows, T - start)
                    keys = S - T + start + n if causal else S
                    qs = q + 4 * (b * q_b + h * q_h + start * q_t)
                    dys = dy + 4 * (b * dy_b + h * dy_h + start * dy_t)
                    p, dp = np.empty((n, keys), np.float32), np.empty((n, keys), np.float32)
                    sgemm(101, 111, 112, n, keys, D, scale, qs, q_t, ks, k_t, zero, p.ctypes.data, keys)
                    sgemm(101, 111, 112, n, keys, D, one, dys, dy_t, vs, v_t, zero, dp.ctypes.data, keys)
                    for i in range(n):
                        ps, ds = p[i], dp[i]
                        hide(ps, S - T + start + i, causal, window, segments, b)
                        total, mean = lse[b, h, start + i], inner[b, h, start + i]
                        for j in range(keys):
                            ps[j] = exp(ps[j] - total)
                            ds[j] = ps[j] * (ds[j] - mean)
                    # y = p v
                    sgemm(101, 112, 111, keys, D, n, one, p.ctypes.data, keys, dys, dy_t, first, dvs, dv_t)
                    # s = scale q kᵀ
                    dqs = dq + 4 * (b * dq_b + h * dq_h + start * dq_t)
                    sgemm(101, 111, 111, n, D, keys, scale, dp.ctypes.data, keys, ks, k_t, zero, dqs, dq_t)
                    sgemm(101, 112, 111, keys, D, n, scale, dp.ctypes.data, keys, qs, q_t, first, dks, dk_t)
                    first = one


def view(x):
    """How a kernel is told of an array (B, H, T, D)."""
    return x.ctypes.data, *(stride // 4 for stride in x.strides[:3])


def readable(x):
    """The array itself if rows of its last axis are contiguous and apart, else a copy."""
    fits = x.strides[3] == 4 and all(s >= 4 * x.shape[3] and s % 4 == 0 for s in x.strides[:3])
    return x if fits else np.ascontiguousarray(x)


def empty_like_heads(x):
    """(B, H, T, D) in the memory of a (B, T, H, D), which the layer joins to (B, T, H D) without a copy."""
    B, H, T, D = x.shape
    return np.empty((B, T, H, D), np.float32).transpose(0, 2, 1, 3)


@attention.kernel("numba")
def attention_kernel(q, k, v, *, causal=True, window=None, segments=None, bias=None):
    arrays = (q, k, v)
    if not blas.available or any(type(x) is not np.ndarray or x.dtype != np.float32 for x in arrays):
        return NotImplemented
    if bias is not None or 0 in (*q.shape, *k.shape):
        return NotImplemented
    check_shapes(q, k, v)
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    check_masks(B, S, window, segments)
    q, k, v = map(readable, arrays)
    mask = causal, S + T if window is None else window, whole_numbers(segments)
    rows, scale = SHORT if S <= 512 else LONG, np.float32(1 / math.sqrt(D))
    y, lse = empty_like_heads(q), np.empty((B, H, T), np.float32)
    forward(*view(q), *view(k), *view(v), *view(y), lse, G, S, D, *mask, scale, rows)

    def vjp(dy):
        dy = readable(dy)
        dq, dk, dv = map(empty_like_heads, (q, k, v))
        # Σ_s dp p = Σ_s Σ_d dy v p = Σ_d dy y
        inner = np.einsum("bhtd,bhtd->bht", dy, y, order="C")
        backward(
            *view(q), *view(k), *view(v), *view(dy), *view(dq), *view(dk), *view(dv), lse, inner,
            G, S, D, *mask, scale, rows,
        )  # fmt: skip
        return dq, dk, dv

    return y, vjp


def whole_numbers(segments):
    """Segments as the kernels take them; an array of no samples for None."""
    return np.empty((0, 0), np.int64) if segments is None else np.ascontiguousarray(segments, np.int64)

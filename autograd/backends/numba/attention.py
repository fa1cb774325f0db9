"""Attention by tiles, some queries by some keys: the scores of a tile at a time, never those of all.

Forward goes over the keys with the softmax of those seen so far (docs/kernels.md derives it) and keeps, for each query,
the logarithm of its sum of exponentials (lse): then p = exp(s - lse) comes back in backward from the scores of a tile,
which are computed again. A thread needs the memory of a tile or two, however many keys there are. Tiles of which no
query sees anything are left out: the future, and what is before a window. Products are BLAS's, on one thread.

Arrays may be views (heads in the middle of a wider matrix, the filled part of a cache): only their last axis must be
contiguous. Dao et al. 2022, "FlashAttention"; Milakov and Gimelshein 2018 for the softmax.
"""

import math

import numpy as np
from numba import carray, float32, int64, prange, types, void
from numba.extending import intrinsic

from autograd.arrays import is_half
from autograd.backends.numba import blas
from autograd.backends.numba.blas import sgemm
from autograd.backends.numba.building import called, compiled, inlined
from autograd.backends.numba.formulas import ONE, ZERO, exp, larger
from autograd.backends.numba.halves import alike, rounded, widened
from autograd.backends.numba.launch import SMALL, launch, run_on
from autograd.ops.attention import attention, check_masks, check_shapes

SHORT, LONG = 64, 128  # queries in a tile, up to 512 keys and beyond
FEW = 16  # queries: with these, BLAS takes most of its time to copy the keys into an order that it likes,
IN_PLACE = 2**16  # except in products of at most so many multiplications (measured: two to four times as fast)
KEYS = 256  # in a tile: its scores, queries, keys and values should stay in the cache
BUSY = 0.8  # backward is cut finely enough that threads idle no more than a fifth of the time
# A view of shape (B, H, T, D) is passed as its address and the elements between its batches, heads and rows.
VIEW = (int64, int64, int64, int64)
HEADS = float32[:, :, :, ::1]
SHAPE = (int64, int64, int64)  # G, S, D
# causal, window (S + T where there is none), segments (of no samples if none), bias (address 0 if none)
MASK = (int64, int64, int64[:, ::1], *VIEW)

NEVER = np.float32(-np.inf)


@intrinsic
def pointer(typing, address):
    """The pointer to float32 that this whole number is."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(float32)))

    return types.CPointer(float32)(int64), generate


@inlined
def floats(address, n):
    """The n floats at an address as an array."""
    return carray(pointer(address), (n,))


@inlined
def block_of(task, blocks):
    """Blocks in the order first, last, second, last but one, …: later queries see more keys, and a thread takes
    neighbouring tasks, which so are as much work everywhere."""
    return task // 2 if task % 2 == 0 else blocks - 1 - task // 2


@inlined
def seen(first, last, S, causal, window):
    """From which to which key the queries at these positions look, together."""
    return max(first - window + 1, 0), last + 1 if causal else S


@called
def add_bias(row, bias):
    """To a row of scores, the numbers from this address on."""
    extra = floats(bias, row.size)
    for j in range(row.size):
        row[j] += extra[j]


@called
def hide_other_segments(row, own, segments):
    """-inf for keys of other segments than the query's own, and for all if this is padding."""
    for j in range(row.size):
        row[j] = row[j] if segments[j] == own and own != -1 else NEVER


@inlined
def mask(row, at, first, b, h, t, causal, window, segments, bias, bias_b, bias_h, bias_t):
    """To a row of scores, the bias; and -inf where the query at this position may not see, as in `attention_mask`."""
    if bias:
        add_bias(row, bias + 4 * (b * bias_b + h * bias_h + t * bias_t + first))
    if len(segments):
        hide_other_segments(row, segments[b, at], segments[b, first:])
    for j in range(min(at - window + 1 - first, row.size)):
        row[j] = NEVER
    if causal:
        for j in range(max(at + 1 - first, 0), row.size):
            row[j] = NEVER


@inlined
def largest(row, top):
    """The largest of `top` and a row."""
    for j in range(row.size):
        top = larger(top, row[j])
    return top


@inlined
def exponentials(row, top):
    """The row becomes exp(row - top); their sum. All 0 where nothing was seen, that is, where top is -inf."""
    zero, total = ZERO if top == NEVER else top, ZERO
    for j in range(row.size):
        row[j] = exp(row[j] - zero)
        total += row[j]
    return total


@compiled(
    void(*VIEW, *VIEW, *VIEW, HEADS, float32[:, :, ::1], *SHAPE, *MASK, float32, int64, int64, int64), parallel=True
)
def forward(
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, y, lse,
    G, S, D, causal, window, segments, bias, bias_b, bias_h, bias_t, scale, rows, most, step,
):  # fmt: skip
    """y (B, T, H, D) = softmax(scale q kᵀ + mask) v and lse (B, H, T). A task: some `rows`, `most` keys at a time.

    step: from one query to the next in positions, 1; or 0, where all stand at the last key.
    With m the largest score of a row so far, total = Σ exp(s - m) and y = Σ exp(s - m) v over the keys so far.
    """
    B, H, T = lse.shape
    blocks = (T + rows - 1) // rows
    for task in prange(B * H * blocks):
        b, h, start = task // blocks // H, task // blocks % H, rows * block_of(task % blocks, blocks)
        n, at = min(rows, T - start), S - 1 - step * (T - 1 - start)
        qs, ks, vs = (
            q + 4 * (b * q_b + h * q_h + start * q_t),
            k + 4 * (b * k_b + h // (H // G) * k_h),
            v + 4 * (b * v_b + h // (H // G) * v_h),
        )
        ys = y[b, start, h].ctypes.data
        low, high = seen(at, at + step * (n - 1), S, causal, window)
        width = min(most, high - low)
        s, tops, totals = np.empty((n, width), np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
        for i in range(n):
            tops[i], totals[i] = NEVER, ZERO
        for first in range(low, high, most):
            keys, beta = min(most, high - first), ZERO if first == low else ONE
            sgemm(101, 111, 112, n, keys, D, scale, qs, q_t, ks + 4 * first * k_t, k_t, ZERO, s.ctypes.data, width)
            for i in range(n):
                row = s[i, :keys]
                mask(
                    row, at + step * i, first, b, h, start + i,
                    causal, window, segments, bias, bias_b, bias_h, bias_t,
                )  # fmt: skip
                old, top = tops[i], largest(row, tops[i])
                total = exponentials(row, top)
                if old in (NEVER, top):  # y is 0 so far, or needs no other factor
                    totals[i] += total
                else:
                    less = exp(old - top)
                    totals[i] = totals[i] * less + total
                    ts = y[b, start + i, h]
                    for d in range(D):
                        ts[d] *= less
                tops[i] = top
            sgemm(101, 111, 111, n, D, keys, ONE, s.ctypes.data, width, vs + 4 * first * v_t, v_t, beta, ys, H * D)
        for i in range(n):
            if totals[i] == ZERO:  # sees nothing: y = 0, and p = 0 in backward
                lse[b, h, start + i] = np.inf
                continue
            lse[b, h, start + i] = tops[i] + np.log(totals[i])
            over, ts = ONE / totals[i], y[b, start + i, h]
            for d in range(D):
                ts[d] *= over


@compiled(
    void(*VIEW, *VIEW, *VIEW, *VIEW, HEADS, float32[:, :, :, :, ::1], float32[:, :, :, :, ::1],
         float32[:, :, ::1], float32[:, :, ::1], *SHAPE, *MASK, float32, int64),
    parallel=True,
)  # fmt: skip
def backward(
    q, q_b, q_h, q_t, k, k_b, k_h, k_t, v, v_b, v_h, v_t, dy, dy_b, dy_h, dy_t, dq, dk, dv, lse, inner,
    G, S, D, causal, window, segments, bias, bias_b, bias_h, bias_t, scale, rows,
):  # fmt: skip
    """dq (B, T, H, D); dk and dv (parts, B, S, G, D), given as 0; inner (B, H, T) = Σ_d dy y = Σ_s dp p.

    The queries of a key head, all blocks of all its heads, are cut into as many parts as dk and dv have. A task is
    a part; what its queries give the keys adds up there.
    """
    B, H, T = lse.shape
    parts, blocks = len(dk), (T + rows - 1) // rows
    items = H // G * blocks
    for task in prange(B * G * parts):
        b, g, part = task // parts // G, task // parts % G, task % parts
        ks, vs = k + 4 * (b * k_b + g * k_h), v + 4 * (b * v_b + g * v_h)
        width = min(KEYS, S)
        p, ds = np.empty((rows, width), np.float32), np.empty((rows, width), np.float32)
        begin, end = items * part // parts, items * (part + 1) // parts
        for item in range(begin, end):
            known = ZERO if item == begin else ONE  # dk and dv are still 0
            h, start = g * (H // G) + item // blocks, rows * block_of(item % blocks, blocks)
            n, at = min(rows, T - start), S - T + start
            qs, dys = q + 4 * (b * q_b + h * q_h + start * q_t), dy + 4 * (b * dy_b + h * dy_h + start * dy_t)
            dqs = dq[b, start, h].ctypes.data
            low, high = seen(at, at + n - 1, S, causal, window)
            for first in range(low, high, KEYS):
                keys, beta = min(KEYS, high - first), ZERO if first == low else ONE
                k_here, v_here = ks + 4 * first * k_t, vs + 4 * first * v_t
                dk_here, dv_here = dk[part, b, first, g].ctypes.data, dv[part, b, first, g].ctypes.data
                sgemm(101, 111, 112, n, keys, D, scale, qs, q_t, k_here, k_t, ZERO, p.ctypes.data, width)
                sgemm(101, 111, 112, n, keys, D, ONE, dys, dy_t, v_here, v_t, ZERO, ds.ctypes.data, width)
                for i in range(n):
                    ps, dss, total, mean = p[i, :keys], ds[i], lse[b, h, start + i], inner[b, h, start + i]
                    mask(
                        ps, at + i, first, b, h, start + i,
                        causal, window, segments, bias, bias_b, bias_h, bias_t,
                    )  # fmt: skip
                    for j in range(keys):
                        ps[j] = exp(ps[j] - total)
                        dss[j] = ps[j] * (dss[j] - mean)
                # y = p v
                sgemm(101, 112, 111, keys, D, n, ONE, p.ctypes.data, width, dys, dy_t, known, dv_here, G * D)
                # s = scale q kᵀ
                sgemm(101, 111, 111, n, D, keys, scale, ds.ctypes.data, width, k_here, k_t, beta, dqs, H * D)
                sgemm(101, 112, 111, keys, D, n, scale, ds.ctypes.data, width, qs, q_t, known, dk_here, G * D)


@compiled(void(float32[:, :, ::1], float32[:, ::1]), parallel=True)
def add_up(parts, total):
    """total = Σ parts, always in the same order."""
    for row in prange(len(total)):
        sums = total[row]
        for j in range(sums.size):
            sums[j] = ZERO
        for part in range(len(parts)):
            more = parts[part, row]
            for j in range(sums.size):
                sums[j] += more[j]


def view(x):
    """How a kernel is told of an array (B, H, T, D), or of none."""
    if x is None:
        return 0, 0, 0, 0
    batch, head, row, _ = x.strides
    return x.ctypes.data, batch // 4, head // 4, row // 4


def readable(x):
    """An array in float32: itself if rows of its last axis are contiguous and apart, else a copy."""
    x = widened(x)
    *outer, last = x.strides
    fits = last == 4 and min(outer) >= 4 * x.shape[3] and not any(stride % 4 for stride in outer)
    return x if fits else x.copy()  # not ascontiguousarray: it lets the stride of an axis of length 1 be anything


def spread(bias, shape):
    """A bias as a view (B, H, T, S) whose last axis is contiguous; along others it may stand still."""
    bias = np.asarray(bias, np.float32)
    if bias.shape[-1:] != shape[3:] or bias.strides[-1] != 4:
        bias = np.ascontiguousarray(np.broadcast_to(bias, (*bias.shape[:-1], shape[3])))
    return np.broadcast_to(bias, shape)


def parts_of(tasks, most, threads):
    """Into how many parts to cut each of these tasks: as few as keep the threads busy, and no more than `most`."""
    enough = (parts for parts in range(1, most) if tasks * parts >= BUSY * threads * -(-tasks * parts // threads))
    return next(enough, most)


def sum_of(parts):
    """(parts, B, S, G, D) -> (B, S, G, D)"""
    if len(parts) == 1:
        return parts[0]
    total = np.empty(parts.shape[1:], np.float32)
    launch(add_up, parts.reshape(len(parts), -1, parts.shape[-1]), total.reshape(-1, parts.shape[-1]))
    return total


@attention.kernel("numba")
def attention_kernel(q, k, v, *, causal=True, window=None, segments=None, bias=None):
    if not blas.available or not alike(q, k, v):
        return NotImplemented
    if 0 in (*q.shape, *k.shape):
        return NotImplemented
    check_shapes(q, k, v)
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    check_masks(B, S, window, segments)
    dtype = q.dtype
    qs, ks, vs = map(readable, (q, k, v))
    q, k, v = (q, k, v) if is_half(dtype) else (qs, ks, vs)  # what is saved: halves, or what can be read as it is
    segments = whole_numbers(segments)
    bias = None if bias is None else spread(bias, (B, H, T, S))
    threads = max(B * H * T * S * D // blas.SMALL, k.size // SMALL)  # what products, or reading the keys, are worth
    shape = G, S, D, causal, S + T if window is None else window, segments
    scale = np.float32(1 / math.sqrt(D))

    # Where each head has one query, the queries of the heads that share keys are the rows of one matrix.
    B, H_, T_ = heads = (B, G, H // G) if T == 1 else (B, H, T)
    asked, extra = qs.reshape(*heads, D), None if bias is None else bias.reshape(*heads, S)
    rows = SHORT if S <= 512 else LONG
    most = KEYS if T_ > FEW else max(16, IN_PLACE // (T_ * D))
    y, lse = np.empty((B, T_, H_, D), np.float32), np.empty(heads, np.float32)
    run_on(
        threads, forward,
        *view(asked), *view(ks), *view(vs), y, lse, *shape, *view(extra), scale, rows, most, int(T > 1),
    )  # fmt: skip
    # The memory of a (B, T, H, D), which the layer joins to (B, T, H D) without a copy.
    y, lse = rounded(y.transpose(0, 2, 1, 3).reshape(q.shape), dtype), lse.reshape(B, H, T)

    def vjp(dy):
        qs, ks, vs, dys = map(readable, (q, k, v, dy))
        # Σ_s dp p = Σ_s Σ_d dy v p = Σ_d dy y
        inner = np.einsum("bhtd,bhtd->bht", dys, widened(y), order="C")
        parts = parts_of(B * G, H // G * -(-T // rows), blas.THREADS)
        dq, (dk, dv) = np.empty((B, T, H, D), np.float32), np.zeros((2, parts, B, S, G, D), np.float32)
        run_on(
            threads, backward,
            *view(qs), *view(ks), *view(vs), *view(dys), dq, dk, dv, lse, inner, *shape, *view(bias), scale, rows,
        )  # fmt: skip
        return tuple(rounded(dx, dtype).transpose(0, 2, 1, 3) for dx in (dq, sum_of(dk), sum_of(dv)))

    return y, vjp


def whole_numbers(segments):
    """Segments as the kernels take them; an array of no samples for None."""
    return np.empty((0, 0), np.int64) if segments is None else np.ascontiguousarray(segments, np.int64)

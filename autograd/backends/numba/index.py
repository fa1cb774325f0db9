"""The gradient of a table of rows. A thread owns columns, so no two add into one number, and sums are in one order.

Looking up is left to NumPy, which copies whole rows.
"""

import numpy as np
from numba import float32, int64, prange, void

from autograd.backends.numba.activation import flatten
from autograd.backends.numba.building import compiled
from autograd.backends.numba.halves import alike, rounded, widened
from autograd.backends.numba.launch import launch
from autograd.ops.index import check_rows, embedding

COLUMNS = 64  # of one thread: some cache lines

rows = float32[:, ::1]


@compiled(void(rows, int64[::1], rows), parallel=True)
def add_up(dy, ids, dweight):
    """dW[ids[i]] += dy[i], i in order"""
    for piece in prange((dy.shape[1] + COLUMNS - 1) // COLUMNS):
        here = slice(piece * COLUMNS, (piece + 1) * COLUMNS)
        for i in range(len(ids)):
            dweights, dys = dweight[ids[i]][here], dy[i][here]
            for j in range(dys.size):
                dweights[j] += dys[j]


@embedding.kernel("numba")
def embedding_kernel(weight, ids):
    if not alike(weight) or weight.ndim != 2 or weight.size == 0:
        return NotImplemented
    check_rows("embedding", ids, len(weight))
    shape, dtype = weight.shape, weight.dtype
    y = weight[ids]

    def dweight(dy, out=None):
        if out is None or out.dtype != np.float32 or not out.flags.carray:
            out = np.zeros(shape, np.float32)
        else:
            out.fill(0)
        launch(add_up, flatten(widened(dy)).reshape(-1, shape[1]), np.require(ids.reshape(-1), np.int64, "CAW"), out)
        return rounded(out, dtype)

    vjp = (dweight, None)
    return y, vjp

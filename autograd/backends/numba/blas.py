"""The matrix product of a BLAS library, by the name of its symbol, for use inside compiled loops.

Numba's own `@` needs SciPy and runs on threads of its own. A kernel here cuts a product into pieces and hands each to
one of its threads; the library is told to use one. Found are the libraries that come with NumPy's wheels; where there
is none, `available` is False and kernels that need a product decline.
"""

import ctypes
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
from numba import float32, int32, int64, prange, types, void

from autograd.backends.numba.building import compiled

SYMBOL, SET_THREADS = "scipy_cblas_sgemm64_", "scipy_openblas_set_num_threads64_"


def find():
    """Load the library that NumPy came with, on one thread; whether it has what is needed."""
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        llvmlite.binding.load_library_permanently(str(path))
        if llvmlite.binding.address_of_symbol(SYMBOL):
            getattr(ctypes.CDLL(str(path)), SET_THREADS)(1)
            return True
    return False


available = find()
THREADS = numba.config.NUMBA_NUM_THREADS  # pieces do not depend on how many threads are free: the same bits each time
ROWS, PLAIN, TRANSPOSED = 101, 111, 112  # CBLAS's numbers for row-major, A and Aᵀ

sgemm = types.ExternalFunction(
    SYMBOL,
    void(
        int32, int32, int32, int64, int64, int64, float32, int64, int64, int64, int64, float32, int64, int64
    ),
)  # fmt: skip
"""sgemm(ROWS, of a, of b, M, N, K, alpha, a, lda, b, ldb, beta, c, ldc): c = alpha a b + beta c. a, b, c are addresses,
ld the number of elements from one row to the next. Nothing checks them."""


if available:

    @compiled(
        void(int32, int32, int64, int64, int64, int64, int64, int64, int64, float32, int64, int64, int64), parallel=True
    )
    def cut_product(of_a, of_b, M, N, K, a, lda, b, ldb, beta, c, ldc, pieces):
        """c (M, N) = a b + beta c, the longer side of c cut into pieces."""
        by_rows = M >= N
        step = ((M if by_rows else N) + pieces - 1) // pieces
        step = (step + 31) // 32 * 32
        for piece in prange(pieces):
            start = piece * step
            n = min(step, (M if by_rows else N) - start)
            if n > 0 and by_rows:
                here = a + 4 * start * (lda if of_a == 111 else 1)
                sgemm(101, of_a, of_b, n, N, K, np.float32(1), here, lda, b, ldb, beta, c + 4 * start * ldc, ldc)
            elif n > 0:
                here = b + 4 * start * (1 if of_b == 111 else ldb)
                sgemm(101, of_a, of_b, M, n, K, np.float32(1), a, lda, here, ldb, beta, c + 4 * start, ldc)


def as_operand(x):
    """(array, PLAIN or TRANSPOSED, ld) of a matrix that BLAS can read in place; a copy of one that it cannot."""
    if x.strides[1] == 4 and x.strides[0] >= 4 * x.shape[1]:
        return x, PLAIN, x.strides[0] // 4
    if x.strides[0] == 4 and x.strides[1] >= 4 * x.shape[0]:
        return x, TRANSPOSED, x.strides[1] // 4
    x = np.ascontiguousarray(x)
    return x, PLAIN, x.shape[1]


SMALL = 2**18  # multiplications, some microseconds: less than what waking the others takes


def product(a, b, out=None, accumulate=False):
    """a b of two float32 matrices, on all threads; accumulate: added to what `out` holds."""
    (M, K), N = a.shape, b.shape[1]
    y = np.empty((M, N), np.float32) if out is None else out
    if M * N * K <= SMALL or not y.flags.c_contiguous:
        if not accumulate:
            return np.matmul(a, b, out=y)
        y += a @ b
        return y
    (a, of_a, lda), (b, of_b, ldb) = as_operand(a), as_operand(b)
    addresses = a.ctypes.data, lda, b.ctypes.data, ldb, np.float32(accumulate), y.ctypes.data, N
    cut_product(of_a, of_b, M, N, K, *addresses, THREADS)
    return y

"""The matrix product of a BLAS library, by the address of its function, for use inside compiled loops.

Numba's own `@` needs SciPy and runs on threads of its own. A kernel here cuts a product into pieces and hands each to
one of its threads; the library is kept to one. Looked for are Intel's MKL, where it is installed, and the OpenBLAS that
comes with NumPy's wheels; AUTOGRAD_BLAS=mkl, openblas or none decides otherwise. Where there is none, products are
`np.matmul`'s, on that library's threads, and kernels that need a product inside a loop decline.

Matrices in half precision are widened to float32, multiplied, and the result is float32. MKL can also read bfloat16 as
it is and add up in float32: it is asked to where the processor has matrix units for that (AMX), and only there. On
processors without, AMD's with AVX-512 BF16 among them, MKL widens too, and was measured to be no faster.
"""

import ctypes
import math
import os
import re
import site
import sys
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
from numba import float32, int32, int64, prange, types, void

from autograd.backends.numba.building import compiled, inlined
from autograd.backends.numba.halves import is_bfloat16, widened
from autograd.backends.numba.launch import run_on


@dataclass(frozen=True)
class Library:
    """A BLAS library in a file, and the names it gives to what is needed of it."""

    name: str
    path: Path
    sgemm: str  # cblas_sgemm with 64-bit integers
    setup: tuple  # (function, whole number) to call first: one thread
    bf16: str = ""  # the same with a and b in bfloat16, c still in float32; "" where there is none

    def version(self):
        """Its name and the number that it gives itself."""
        loaded = ctypes.CDLL(str(self.path))
        if self.name == "MKL":
            text = ctypes.create_string_buffer(200)
            loaded.mkl_get_version_string(text, len(text))
        else:
            loaded.scipy_openblas_get_config64_.restype = ctypes.c_char_p
            text = ctypes.c_char_p(loaded.scipy_openblas_get_config64_())
        return f"{self.name} {re.search(r'[0-9][0-9.]+', text.value.decode())[0]}"


def candidates():
    """Every library of the two kinds that lies where a wheel or Conda puts it, the faster kind first."""
    for root in (sys.prefix, site.getuserbase()):
        for pattern in ("lib/libmkl_rt.*", "Library/bin/mkl_rt.*.dll"):
            for path in sorted(Path(root).glob(pattern), reverse=True):
                sequential = (("MKL_Set_Threading_Layer", 1),)
                yield Library("MKL", path, "cblas_sgemm_64", sequential, "cblas_gemm_bf16bf16f32_64")
    numpy = Path(np.__file__).parent
    for folder in (numpy.parent / "numpy.libs", numpy / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            one_thread = (("scipy_openblas_set_num_threads64_", 1),)
            yield Library("OpenBLAS", path, "scipy_cblas_sgemm64_", one_thread)


NAMES = "tinyllm_sgemm", "tinyllm_bf16gemm"  # what compiled code calls, whichever library: kernels on disk stay right


def find():
    """Load the first library that has all that is needed and give its products to the compiler; None without one.

    Every library found is kept to one thread, also NumPy's where MKL is used: there is one pool. ImportError if
    AUTOGRAD_BLAS names what is not here.
    """
    wish = os.environ.get("AUTOGRAD_BLAS", "").lower()
    if wish == "none":
        return None
    found = None
    for library in candidates():
        try:
            loaded = ctypes.CDLL(str(library.path))
            products = [getattr(loaded, library.sgemm), getattr(loaded, library.bf16 or library.sgemm)]
            for function, number in library.setup:
                getattr(loaded, function)(number)
        except (OSError, AttributeError):  # for another processor, or an older one without 64-bit integers
            continue
        if found is None and wish in ("", library.name.lower()):
            give(products)
            found = library
    if wish and found is None:
        raise ImportError(f"AUTOGRAD_BLAS={wish}, but there is no such library; unset it, or: pip install mkl")
    return found


def give(products):
    """Tell the compiler where the two functions lie."""
    for name, function in zip(NAMES, products, strict=True):
        llvmlite.binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)


library = find()
if library is None:  # kernels that name the products can then be compiled and kept all the same; none of them runs
    nothing = ctypes.CFUNCTYPE(None)(lambda: None)
    give([nothing, nothing])
THREADS = numba.config.NUMBA_NUM_THREADS  # pieces do not depend on how many threads are free: the same bits each time
ROWS, PLAIN, TRANSPOSED = 101, 111, 112  # CBLAS's numbers for row-major, A and Aᵀ

arguments = void(
    int32, int32, int32, int64, int64, int64, float32, int64, int64, int64, int64, float32, int64, int64
)  # fmt: skip
sgemm, bf16gemm = (types.ExternalFunction(name, arguments) for name in NAMES)
"""sgemm(ROWS, of a, of b, M, N, K, alpha, a, lda, b, ldb, beta, c, ldc): c = alpha a b + beta c. a, b, c are addresses,
ld the number of elements from one row to the next. Nothing checks them. bf16gemm: a and b are bfloat16."""


@inlined
def multiply(size, of_a, of_b, M, N, K, a, lda, b, ldb, beta, c, ldc):
    """c = a b + beta c. size: of an element of a and b in bytes, 4 or, for bfloat16, 2."""
    if size == 4:
        sgemm(101, of_a, of_b, M, N, K, np.float32(1), a, lda, b, ldb, beta, c, ldc)
    else:
        bf16gemm(101, of_a, of_b, M, N, K, np.float32(1), a, lda, b, ldb, beta, c, ldc)


@compiled(
    void(int64, int32, int32, int64, int64, int64, int64, int64, int64, int64, float32, int64, int64, int64),
    parallel=True,
)
def cut_product(size, of_a, of_b, M, N, K, a, lda, b, ldb, beta, c, ldc, pieces):
    """c (M, N) = a b + beta c, the longer side of c cut into pieces. size: as for `multiply`."""
    by_rows = M >= N
    step = ((M if by_rows else N) + pieces - 1) // pieces
    step = (step + 31) // 32 * 32
    for piece in prange(pieces):
        start = piece * step
        n = min(step, (M if by_rows else N) - start)
        if n > 0 and by_rows:
            here = a + size * start * (lda if of_a == 111 else 1)
            multiply(size, of_a, of_b, n, N, K, here, lda, b, ldb, beta, c + 4 * start * ldc, ldc)
        elif n > 0:
            here = b + size * start * (1 if of_b == 111 else ldb)
            multiply(size, of_a, of_b, M, n, K, a, lda, here, ldb, beta, c + 4 * start, ldc)


def as_operand(x):
    """(array, PLAIN or TRANSPOSED, ld) of matrices (..., M, K) that BLAS can read in place; a copy where it cannot."""
    (rows, columns), (by_row, by_column), size = x.shape[-2:], x.strides[-2:], x.itemsize
    if by_column == size and by_row >= size * columns and by_row % size == 0:
        return x, PLAIN, by_row // size
    if by_row == size and by_column >= size * rows and by_column % size == 0:
        return x, TRANSPOSED, by_column // size
    x = np.ascontiguousarray(x)
    return x, PLAIN, columns


def proven(size):
    """Whether there is a library and its product is that of NumPy: of a plain matrix with a turned one, added."""
    if library is None or (size == 2 and not library.bf16):
        return False
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(4, 3)
    c, expected = np.ones((2, 4), np.float32), a @ b.T + 1
    a, b = (x.view(np.uint16)[:, 1::2].copy() if size == 2 else x for x in (a, b))  # the upper half: whole numbers fit
    addresses = a.ctypes.data, 3, b.ctypes.data, 3, np.float32(1), c.ctypes.data, 4
    cut_product(size, PLAIN, TRANSPOSED, 2, 4, 3, *addresses, 1)
    return (c == expected).all()


def has_matrix_units():
    """Whether the processor multiplies matrices of bfloat16 in units of their own."""
    return bool(llvmlite.binding.get_host_cpu_features().get("amx-bf16"))


available = proven(4)
native_bf16 = has_matrix_units() and proven(2)
SMALL = 2**18  # multiplications, some microseconds: less than what waking another thread takes


def product(a, b, out=None, accumulate=False):
    """a b in float32 of two matrices, on all threads; accumulate: added to what `out` holds.

    Of half precision too: what they hold is multiplied and added up in float32.
    """
    (M, K), N = a.shape, b.shape[1]
    y = np.empty((M, N), np.float32) if out is None else out
    in_pieces = available and M * N * K > SMALL and y.flags.c_contiguous
    if not (in_pieces and native_bf16 and is_bfloat16(a) and is_bfloat16(b)):
        a, b = widened(a), widened(b)
    if not in_pieces:
        if not accumulate:
            return np.matmul(a, b, out=y)
        y += a @ b
        return y
    (a, of_a, lda), (b, of_b, ldb) = as_operand(a), as_operand(b)
    pieces = min(THREADS, M * N * K // SMALL)
    addresses = a.ctypes.data, lda, b.ctypes.data, ldb, np.float32(accumulate), y.ctypes.data, N
    run_on(pieces, cut_product, a.itemsize, of_a, of_b, M, N, K, *addresses, pieces)
    return y


@compiled(void(int32, int32, int64, int64, int64, int64[::1], int64, int64[::1], int64, int64, int64), parallel=True)
def every_product(of_a, of_b, M, N, K, a, lda, b, ldb, c, ldc):
    """c_i (M, N) = a_i b_i, one thread for each; a and b hold their addresses, the c_i lie one after another."""
    for i in prange(len(a)):
        here = c + 4 * i * M * N
        sgemm(101, of_a, of_b, M, N, K, np.float32(1), a[i], lda, b[i], ldb, np.float32(0), here, ldc)


def stacked_product(a, b):
    """a b of two float32 arrays of matrices whose leading axes broadcast, as np.matmul has it."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (M, K), N = a.shape[-2:], b.shape[-1]
    if not available or math.prod(batch) < THREADS or 0 in (*a.shape, *b.shape):
        return np.matmul(a, b)
    (a, of_a, lda), (b, of_b, ldb) = as_operand(a), as_operand(b)
    y = np.empty((*batch, M, N), np.float32)
    every = of_a, of_b, M, N, K, addresses(a, batch), lda, addresses(b, batch), ldb, y.ctypes.data, N
    run_on(math.prod(batch) * M * N * K // SMALL, every_product, *every)
    return y


def addresses(x, batch):
    """The address of each matrix of x, broadcast to the shape `batch` of leading axes."""
    x = np.broadcast_to(x, (*batch, *x.shape[-2:]))
    at = np.array(x.ctypes.data, np.int64)
    for n, stride in zip(batch, x.strides, strict=False):
        at = at[..., None] + stride * np.arange(n)
    return at.reshape(-1)

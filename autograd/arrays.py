"""The few true differences between array modules. Everything else is plain array code over `xp = xp_of(x)`.

The array decides the module: NumPy's arrays compute with NumPy, CuPy's with CuPy. Nothing here imports CuPy unless
the caller asks for a GPU.
"""

import sys
import tracemalloc

import numpy as np


def xp_of(*arrays):
    """The array module of the first argument that is not a Python or NumPy scalar (NumPy if there is none)."""
    for x in arrays:
        module = type(x).__module__.partition(".")[0]
        if hasattr(x, "dtype") and module != "numpy":
            return sys.modules[module]
    return np


def to_device(array, device):
    """`array` on "cpu" or "cuda"; a copy only if it has to move."""
    if device == "cpu":
        return array.get() if hasattr(array, "get") else array
    if device == "cuda":
        try:
            import cupy
        except ImportError:
            raise ValueError('device "cuda" needs CuPy: pip install "tinyllm[cuda12]" or "tinyllm[cuda13]"') from None
        return cupy.asarray(array)
    raise ValueError(f'device is "cpu" or "cuda", not {device!r}')


CACHE_LINE = 64  # bytes


def zeros_from_a_line(size, like):
    """A flat array of `size` zeros, of the kind and dtype of `like`, that begins where a cache line begins.

    Sixteen float32 that a loop takes at once are then in one line. NumPy's large arrays begin 16 bytes behind a line,
    and all sixteen are in two; CuPy's arrays begin with a line.
    """
    xp, itemsize = xp_of(like), like.dtype.itemsize
    if hasattr(xp, "cuda"):
        return xp.zeros(size, like.dtype)
    memory = xp.zeros(size + CACHE_LINE // itemsize, like.dtype)
    start = -memory.ctypes.data % CACHE_LINE // itemsize
    return memory[start : start + size]


def synchronize(*arrays):
    """Wait until the device has finished what it was asked to do. CPU arrays are finished when a call returns."""
    cuda = getattr(xp_of(*arrays), "cuda", None)
    if cuda is not None:
        cuda.get_current_stream().synchronize()


def allocations(*arrays):
    """A meter of the memory in which such arrays live: `with allocations(x) as memory:`.

    memory.used(): bytes in use now; only differences mean something. memory.peak(): the most since the last call of
    `peak` or the beginning.
    """
    xp = xp_of(*arrays)
    return device_memory(xp.cuda.MemoryHook) if hasattr(xp, "cuda") else HostMemory()


class HostMemory:
    """What Python and NumPy allocate, from tracemalloc: started if it was not on (it slows allocation), then stopped.

    Memory that compiled code allocates for itself is not seen.
    """

    def __enter__(self):
        self.started = not tracemalloc.is_tracing()
        if self.started:
            tracemalloc.start()
        tracemalloc.reset_peak()
        return self

    def __exit__(self, *_):
        if self.started:
            tracemalloc.stop()

    def used(self):
        return tracemalloc.get_traced_memory()[0]

    def peak(self):
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        return most


def device_memory(MemoryHook):
    """What this thread takes from CuPy's memory pool and gives back, counted by a hook that CuPy calls each time."""

    class DeviceMemory(MemoryHook):
        name = "autograd.arrays.allocations"
        now = most = 0

        def malloc_postprocess(self, *, mem_size, mem_ptr, **_):
            if mem_ptr:  # 0 when there was not enough
                self.now += mem_size
                self.most = max(self.most, self.now)

        def free_postprocess(self, *, mem_size, **_):
            self.now -= mem_size

        def used(self):
            return self.now

        def peak(self):
            most, self.most = self.most, self.now
            return most

    return DeviceMemory()


def is_half(dtype):
    """True for float16 and bfloat16: stored in 16 bits, computed with in 32."""
    return np.dtype(dtype).itemsize == 2 and np.dtype(dtype).kind in "fV"


def widen(x):
    """At least float32: what reductions, softmax and norms compute in. No copy unless `x` is half precision."""
    return x.astype(np.float32) if is_half(x.dtype) else x


def matmul(a, b, out=None):
    """Matrix product. Half-precision inputs are multiplied and accumulated in float32 and rounded once.

    NumPy's own float16 product is slow and its bfloat16 product returns float32, so on the CPU the cast is spelled out.
    """
    xp = xp_of(a, b)
    if not is_half(a.dtype):
        return xp.matmul(a, b, out=out) if out is not None else xp.matmul(a, b)
    y = xp.matmul(widen(a), widen(b)).astype(a.dtype)
    if out is None:
        return y
    out[...] = y
    return out


def scatter_add(target, rows, values):
    """`target[rows[i]] += values[i]` for every i, repeated rows summed. target (V, ...), rows (N,), values (N, ...).

    Sorted by row and summed in runs: fancy-index assignment would keep only the last of repeated rows, and summing
    in one fixed order gives the same bits every time on every device.
    """
    xp = xp_of(target, values)
    if len(rows) == 0:
        return
    order = xp.argsort(rows, kind="stable")
    rows = rows[order]
    starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), rows[1:] != rows[:-1]]))
    target[rows[starts]] += xp.add.reduceat(values[order], starts, axis=0)


def erf(x):
    """The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x, elementwise.

    NumPy has none. float64: the rational approximations of fdlibm's s_erf.c, about one unit in the last place.
    float32 and half: one rational function on [-4, 4] (Eigen's), error below 5e-7, an order of magnitude fewer passes.
    CuPy has its own, in one kernel.
    """
    xp = xp_of(x)
    if xp.__name__ == "cupy":
        from cupyx.scipy.special import erf as own

        return own(widen(x)).astype(x.dtype, copy=False)
    approximation = erf64 if x.dtype == np.float64 else erf32
    y = xp.empty(x.size, x.dtype)
    flat = x.reshape(-1)
    for start in range(0, x.size, PIECE):
        y[start : start + PIECE] = approximation(flat[start : start + PIECE], xp)
    return y.reshape(x.shape)


PIECE = 2**15  # elements that stay in the processor's cache while a polynomial passes over them: five times as fast


def erf32(x, xp):
    z = xp.clip(widen(x), -4.0, 4.0)
    square = z * z
    return z * polynomial(square, ERF32[0]) / polynomial(square, ERF32[1])


def erf64(x, xp):
    z, y = abs(x), xp.empty_like(x)
    near, middle = z < 0.84375, (z >= 0.84375) & (z < 1.25)
    tail, far = (z >= 1.25) & (z < 1 / 0.35), z >= 1 / 0.35
    s = x[near] ** 2
    y[near] = x[near] + x[near] * polynomial(s, ERF_NEAR[0]) / polynomial(s, ERF_NEAR[1])
    s = z[middle] - 1
    y[middle] = 8.45062911510467529297e-01 + polynomial(s, ERF_MIDDLE[0]) / polynomial(s, ERF_MIDDLE[1])
    for where, coefficients in ((tail, ERF_TAIL), (far, ERF_FAR)):
        t = xp.minimum(z[where], 6.0)  # erf(6) rounds to 1
        s = 1 / (t * t)
        y[where] = 1 - xp.exp(-t * t - 0.5625 + polynomial(s, coefficients[0]) / polynomial(s, coefficients[1])) / t
    y[xp.isnan(z)] = np.nan
    return xp.copysign(y, x)


def polynomial(x, coefficients):
    """Horner's rule, highest power first."""
    y = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        y *= x
        y += c
    return y


# Numerator and denominator, highest power first.
ERF32 = (
    (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
     -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
    (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
     -1.42647390514189e-02),
)  # fmt: skip
ERF_NEAR = (
    (-2.37630166566501626084e-05, -5.77027029648944159157e-03, -2.84817495755985104766e-02,
     -3.25042107247001499370e-01, 1.28379167095512558561e-01),
    (-3.96022827877536812320e-06, 1.32494738004321644526e-04, 5.08130628187576562776e-03,
     6.50222499887672944485e-02, 3.97917223959155352819e-01, 1.0),
)  # fmt: skip
ERF_MIDDLE = (
    (-2.16637559486879084300e-03, 3.54783043256182359371e-02, -1.10894694282396677476e-01, 3.18346619901161753674e-01,
     -3.72207876035701323847e-01, 4.14856118683748331666e-01, -2.36211856075265944077e-03),
    (1.19844998467991074170e-02, 1.36370839120290507362e-02, 1.26171219808761642112e-01, 7.18286544141962662868e-02,
     5.40397917702171048937e-01, 1.06420880400844228286e-01, 1.0),
)  # fmt: skip
ERF_TAIL = (
    (-9.81432934416914548592e00, -8.12874355063065934246e01, -1.84605092906711035994e02, -1.62396669462573470355e02,
     -6.23753324503260060396e01, -1.05586262253232909814e01, -6.93858572707181764372e-01, -9.86494403484714822705e-03),
    (-6.04244152148580987438e-02, 6.57024977031928170135e00, 1.08635005541779435134e02, 4.29008140027567833386e02,
     6.45387271733267880336e02, 4.34565877475229228821e02, 1.37657754143519042600e02, 1.96512716674392571292e01, 1.0),
)  # fmt: skip
ERF_FAR = (
    (-4.83519191608651397019e02, -1.02509513161107724954e03, -6.37566443368389627722e02, -1.60636384855821916062e02,
     -1.77579549177547519889e01, -7.99283237680523006574e-01, -9.86494292470009928597e-03),
    (-2.24409524465858183362e01, 4.74528541206955367215e02, 2.55305040643316442583e03, 3.19985821950859553908e03,
     1.53672958608443695994e03, 3.25792512996573918826e02, 3.03380607434824582924e01, 1.0),
)  # fmt: skip

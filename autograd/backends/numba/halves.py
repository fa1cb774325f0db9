"""float16 and bfloat16 in kernels, which compute in float32: half-precision numbers are widened, results rounded.

Numba knows neither type. Their arrays are looked at as whole numbers of 16 bits and converted by bits, in the same way
on every processor and bit for bit as NumPy and ml_dtypes do it, NaN included, but at the speed of memory.

              sign  exponent  fraction      bfloat16 is the upper half of a float32.
    float32    1        8        23         float16 counts exponents from -15, not -127: 112 less. Below 2^-14 it has
    bfloat16   1        8         7         multiples of 2^-24 and no exponent; adding a power of two whose last digit
    float16    1        5        10         has that value, and taking it away, makes or reads them.

To round to nearest, with ties to the even one: add half of what is cut off, less one unit if the last digit that stays
is even, then cut.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import float32, prange, types, uint16, uint32, void
from numba.extending import intrinsic

from autograd.arrays import is_half
from autograd.backends.numba.building import PIECE, compiled, inlined
from autograd.backends.numba.launch import launch

bits = types.Array(uint16, 1, "C", readonly=True)
floats = types.Array(float32, 1, "C", readonly=True)


@intrinsic
def as_float(typing, bits):
    """The float32 that these 32 bits are."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return float32(uint32), generate


@intrinsic
def as_bits(typing, x):
    """The bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return uint32(float32), generate


# Of float32:
MAGNITUDE, INFINITY = map(np.uint32, (0x7FFFFFFF, 0x7F800000))
HALF, TINY = np.float32(0.5), np.float32(2**-14)  # whose last digits are 2^-24 and 2^-37
HALF_BITS, TINY_BITS = HALF.view(np.uint32), TINY.view(np.uint32)
OVERFLOW = np.float32(65520).view(np.uint32)  # halfway from the largest float16 to where the next would be
EXPONENTS = np.uint32(112 << 23)  # between the two ways to count them
# Of the halves:
SIGN, REST, INFINITY16, FRACTION16, QUIET_NAN = map(np.uint32, (0x8000, 0x7FFF, 0x7C00, 0x3FF, 0x7FC0))
SMALLEST_NORMAL, FIRST_SPECIAL = map(np.uint32, (0x0400 << 13, 0x7C00 << 13))
ZERO, ONE, THIRTEEN, SIXTEEN, UNDER_HALF_OF_13, UNDER_HALF_OF_16 = map(np.uint32, (0, 1, 13, 16, 0xFFF, 0x7FFF))


@inlined
def from_float16(h):
    sign, x = (uint32(h) & SIGN) << SIXTEEN, (uint32(h) & REST) << THIRTEEN
    wide = x + EXPONENTS
    wide = as_bits(as_float(x + TINY_BITS) - TINY) if x < SMALLEST_NORMAL else wide
    wide = x | INFINITY if x >= FIRST_SPECIAL else wide
    return as_float(sign | wide)


@inlined
def to_float16(x):
    """NaN keeps its first bits, and does not become infinity by it."""
    b = as_bits(x)
    sign, size, kept = (b >> SIXTEEN) & SIGN, b & MAGNITUDE, (b >> THIRTEEN) & FRACTION16
    h = uint32(size + UNDER_HALF_OF_13 + ((b >> THIRTEEN) & ONE) - EXPONENTS) >> THIRTEEN
    h = uint32(as_bits(as_float(size) + HALF) - HALF_BITS) if size < TINY_BITS else h
    h = INFINITY16 if size >= OVERFLOW else h
    h = INFINITY16 | (kept if kept != ZERO else ONE) if size > INFINITY else h
    return uint16(sign | h)


@inlined
def from_bfloat16(h):
    return as_float(uint32(h) << SIXTEEN)


@inlined
def to_bfloat16(x):
    """Rounded to nearest, ties to even; NaN keeps its sign."""
    b = as_bits(x)
    rounded = uint32(b + UNDER_HALF_OF_16 + ((b >> SIXTEEN) & ONE)) >> SIXTEEN
    nan = ((b >> SIXTEEN) & SIGN) | QUIET_NAN
    return uint16(nan if (b & MAGNITUDE) > INFINITY else rounded)


@compiled(void(bits, float32[::1]), parallel=True)
def widen_float16(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = from_float16(xs[i])


@compiled(void(bits, float32[::1]), parallel=True)
def widen_bfloat16(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = from_bfloat16(xs[i])


@compiled(void(floats, uint16[::1]), parallel=True)
def round_to_float16(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = to_float16(xs[i])


@compiled(void(floats, uint16[::1]), parallel=True)
def round_to_bfloat16(x, y):
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = to_bfloat16(xs[i])


def widened(x, out=None):
    """A half-precision array in float32, in the same order in memory; anything else as it is.

    out: a contiguous float32 array to write into, for a contiguous x.
    """
    if not is_half_array(x):
        return x
    kernel = widen_float16 if x.dtype.kind == "f" else widen_bfloat16
    return converted(kernel, x, np.uint16, np.dtype(np.float32), np.float32, out)


def rounded(x, dtype):
    """A float32 array in a half-precision dtype, in the same order in memory; as it is for other dtypes, and None."""
    if x is None or not is_half(dtype):
        return x
    kernel = round_to_float16 if dtype.kind == "f" else round_to_bfloat16
    return converted(kernel, x, np.float32, dtype, np.uint16)


def converted(kernel, x, read_as, dtype, written_as, out=None):
    """An array like x in another dtype, filled by a kernel, which sees both flat and halves as whole numbers."""
    order = lying(x)
    x = x.transpose(order)
    if not (x.flags.c_contiguous and x.flags.aligned):
        x = np.require(x, requirements="CA")
    y = np.empty(x.shape, dtype) if out is None else out
    launch(kernel, x.reshape(-1).view(read_as), y.reshape(-1).view(written_as))
    return y.transpose(np.argsort(order))


def lying(x):
    """The axes of an array in the order in which they lie in memory, or as they are where that has none."""
    if x.flags.c_contiguous:
        return range(x.ndim)
    return sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))


def is_half_array(x):
    return isinstance(x, np.ndarray) and is_half(x.dtype)


def is_bfloat16(x):
    return is_half(x.dtype) and x.dtype.kind == "V"


def alike(*arrays):
    """Whether these are NumPy's arrays of one dtype, float32 or half precision; None may be among them."""
    dtypes = {x.dtype if isinstance(x, np.ndarray) else None for x in arrays if x is not None}
    dtype = dtypes.pop()
    return not dtypes and dtype is not None and (dtype == np.float32 or is_half(dtype))


def in_float32(kernel):
    """A kernel for float32 that takes half-precision arrays too: widened, and the result rounded to the first's dtype.

    Saved are the inputs as they came, half as large. Backward widens them again, and computes forward again.
    """

    @functools.wraps(kernel)
    def run(*arrays, **options):
        dtypes = [getattr(x, "dtype", None) for x in arrays]
        if not any(map(is_half_array, arrays)):
            return kernel(*arrays, **options)
        result = kernel(*map(widened, arrays), **options)
        if result is NotImplemented:
            return NotImplemented
        y, _ = result

        def vjp(dy):
            _, pull = kernel(*map(widened, arrays), **options)
            return tuple(rounded(dx, dtype) for dx, dtype in zip(pull(widened(dy)), dtypes, strict=True))

        return rounded(y, dtypes[0]), vjp

    return run

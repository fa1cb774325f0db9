"""exp, tanh and erf in float32, as formulas that a loop can be vectorized over.

The compiler's own call the C library once an element, ten times slower. Errors are relative, measured against float64
in tests/autograd/backends: exp 2e-7, tanh 3e-7, erf 4e-7.
"""

import numpy as np
from numba import types
from numba.extending import intrinsic

from autograd.arrays import ERF32
from autograd.backends.numba.building import inlined


@intrinsic
def float_of_bits(typing, bits):
    """The float32 that these 32 bits are."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@intrinsic
def bits_of_float(typing, x):
    """The bits of a float32 as an int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def larger(typing, a, b):
    """max(a, b) of two numbers, neither NaN: Python's max has a branch that keeps a loop from being vectorized."""

    def generate(context, builder, signature, arguments):
        flags = ("nnan", "nsz")
        return builder.select(builder.fcmp_ordered(">", *arguments, flags=flags), *arguments, flags=flags)

    return types.float32(types.float32, types.float32), generate


f32 = np.float32
ZERO, HALF, ONE, TWO = map(f32, (0, 0.5, 1, 2))
LOWEST = f32(-64)  # e^x is 0 below: what is smaller becomes subnormal further on, and BLAS a hundred times as slow
HIGHEST = f32(40)  # and e^40 above: callers want 1 / (1 + e^x), and multiply in any order; nothing may overflow
LOG2_E, LN2_HIGH, LN2_LOW = map(f32, (1.44269504088896341, 0.693359375, -2.12194440e-4))
E0, E1, E2, E3, E4, E5 = map(
    f32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
)


@inlined
def exp(x):
    """e^x = 2^n e^r, n whole, |r| <= log(2)/2, e^r by a polynomial (Cephes' expf). 0 below -64, e^40 above 40."""
    y = min(larger(x, LOWEST), HIGHEST)
    n = np.rint(y * LOG2_E)
    r = y - n * LN2_HIGH
    r = r - n * LN2_LOW
    p = E0 * r + E1
    p = p * r + E2
    p = p * r + E3
    p = p * r + E4
    p = p * r + E5
    p = p * r * r + r + ONE
    power = float_of_bits(bits_of_float(p) + (np.int32(n) << np.int32(23)))
    return ZERO if x <= LOWEST else x if x != x else power  # NaN stays NaN


@inlined
def logistic(x):
    """1 / (1 + e^-x)"""
    return ONE / (ONE + exp(-x))


P0, P1, P2, P3, P4, P5, P6 = map(f32, ERF32[0])
Q0, Q1, Q2, Q3, Q4 = map(f32, ERF32[1])
FOUR = f32(4)


@inlined
def erf(x):
    """The rational function of `autograd.arrays.erf32` on [-4, 4]."""
    z = min(larger(x, -FOUR), FOUR)
    s = z * z
    p = P0 * s + P1
    p = p * s + P2
    p = p * s + P3
    p = p * s + P4
    p = p * s + P5
    p = p * s + P6
    q = Q0 * s + Q1
    q = q * s + Q2
    q = q * s + Q3
    q = q * s + Q4
    return z * p / q

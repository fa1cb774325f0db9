"""The nonlinearities of feed-forward layers."""

import math

from autograd.arrays import erf, widen, xp_of
from autograd.engine import primitive


def logistic(x):
    """1 / (1 + e^-x), in at least float32, by whichever of its two forms takes no exponential of a large number."""
    xp = xp_of(x)
    e = xp.exp(-abs(widen(x)))
    return xp.where(x >= 0, 1, e) / (1 + e)


@primitive
def relu(x):
    """Rectifier.

    Equation   y = max(x, 0)
    Shapes     x, y (...)
    Gradient   dx = dy where x > 0, else 0 (0 at the kink)
    Saves      y
    Cost       one pass
    """
    y = xp_of(x).maximum(x, 0)

    def vjp(dy):
        return (dy * (y > 0),)

    return y, vjp


@primitive
def squared_relu(x):
    """Squared rectifier.

    Equation   y = max(x, 0)²
    Shapes     x, y (...)
    Gradient   dx = 2 dy max(x, 0), which goes through 0: no kink
    Saves      r (max(x, 0))
    Cost       two passes
    Source     So et al. 2021 (Primer)
    """
    r = xp_of(x).maximum(x, 0)
    y = r * r

    def vjp(dy):
        return (dy * (2 * r),)

    return y, vjp


@primitive
def sigmoid(x):
    """Logistic function.

    Equation   y = σ(x) = 1 / (1 + e^-x)
    Shapes     x, y (...)
    Gradient   dx = dy y (1 - y)
    Saves      y
    Cost       one exp
    Precision  inside at least float32
    """
    y = logistic(x).astype(x.dtype, copy=False)

    def vjp(dy):
        p = widen(y)
        return ((dy * (p * (1 - p))).astype(dy.dtype, copy=False),)

    return y, vjp


@primitive
def silu(x):
    """Sigmoid-weighted linear unit, also called swish.

    Equation   y = x σ(x)
    Shapes     x, y (...)
    Gradient   dx = dy (σ + x σ (1 - σ)), σ = σ(x)
    Saves      x, s (σ(x), in at least float32)
    Cost       one exp forward
    Precision  inside at least float32: the derivative passes through zero, where a rounded σ would have no digits left
    Source     Elfwing et al. 2017
    """
    s = logistic(x)
    y = (x * s).astype(x.dtype, copy=False)

    def vjp(dy):
        return ((dy * (s * (1 + x * (1 - s)))).astype(dy.dtype, copy=False),)

    return y, vjp


@primitive
def swiglu(gate, up):
    """A linear unit gated by a swish.

    Equation   y = g σ(g) u
    Shapes     gate g, up u, y (..., F)
    Gradient   du = dy g σ(g);  dg = dy u (σ + g σ (1 - σ)), σ = σ(g)
    Saves      gate, up, s (σ(gate), in at least float32)
    Cost       one exp forward
    Precision  inside at least float32, as in `silu`
    Source     Shazeer 2020, equation 6 (there with the linear maps around it)
    """
    s = logistic(gate)
    y = (gate * s * up).astype(gate.dtype, copy=False)

    def vjp(dy):
        # y = (gate * s) * up
        swish = gate * s
        dup = dy * swish
        dswish = dy * up
        # swish = gate * s(gate)
        dgate = dswish * (s + swish * (1 - s))
        return dgate.astype(gate.dtype, copy=False), dup.astype(up.dtype, copy=False)

    return y, vjp


@primitive
def gelu(x, *, approximate="none"):
    """Gaussian error linear unit: x times the probability that a normal variable is below x.

    Equation   exact ("none"): y = x Φ(x), Φ(x) = (1 + erf(x / √2)) / 2
               "tanh": y = x (1 + t) / 2, t = tanh(√(2/π) (x + 0.044715 x³)), as GPT-2 computes it
    Shapes     x, y (...)
    Gradient   exact: dx = dy (Φ + x φ), φ(x) = exp(-x²/2) / √(2π)
               "tanh": dx = dy ((1 + t) / 2 + x (1 - t²) √(2/π) (1 + 3 · 0.044715 x²) / 2)
    Saves      x, and cdf (Φ) or t (in at least float32)
    Cost       one erf or tanh forward, one exp backward
    Precision  inside at least float32
    Errors     ValueError for another `approximate`
    Source     Hendrycks, Gimpel 2016
    """
    if approximate == "none":
        return gelu_exact(x)
    if approximate == "tanh":
        return gelu_tanh(x)
    raise ValueError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')


def gelu_exact(x):
    xp = xp_of(x)
    cdf = erf(widen(x) * math.sqrt(0.5))
    cdf += 1
    cdf *= 0.5
    y = (x * cdf).astype(x.dtype, copy=False)

    def vjp(dy):
        # y = x * cdf(x), and the derivative of the cdf is the density
        wide = widen(x)
        density = xp.exp(wide * wide * -0.5)
        density *= 1 / math.sqrt(2 * math.pi)
        return ((dy * (cdf + wide * density)).astype(dy.dtype, copy=False),)

    return y, vjp


def gelu_tanh(x):
    xp = xp_of(x)
    a, c = math.sqrt(2 / math.pi), 0.044715
    wide = widen(x)
    t = xp.tanh(wide * (wide * wide * (a * c) + a))
    y = (x * (1 + t) * 0.5).astype(x.dtype, copy=False)

    def vjp(dy):
        # y = x * (1 + t) / 2,  t = tanh(a x + a c x³)
        dt = (1 - t * t) * (widen(x) ** 2 * (3 * a * c) + a)
        return ((dy * (0.5 * (1 + t) + 0.5 * x * dt)).astype(dy.dtype, copy=False),)

    return y, vjp

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
def gelu(x, bias=None, *, approximate="none"):
    """Gaussian error linear unit, after adding a bias: z times the probability that a normal variable is below z.

    The bias stands here and not in the `linear` before, where one asks for speed: a kernel adds it, and sums its
    gradient, in passes that are made anyway.

    Equation   z = x + b
               exact ("none"): y = z Φ(z), Φ(z) = (1 + erf(z / √2)) / 2
               "tanh": y = z (1 + t) / 2, t = tanh(√(2/π) (z + 0.044715 z³)), as GPT-2 computes it
    Shapes     x, y (..., F), bias (F) or None
    Gradient   exact: dx = dy (Φ + z φ), φ(z) = exp(-z²/2) / √(2π)
               "tanh": dx = dy ((1 + t) / 2 + z (1 - t²) √(2/π) (1 + 3 · 0.044715 z²) / 2)
               db = Σ dx over all rows
    Saves      z (x + bias), and cdf (Φ) or t (in at least float32)
    Cost       one erf or tanh forward, one exp backward
    Precision  inside at least float32
    Errors     ValueError for another `approximate`, or a bias that is not one number for each column
    Source     Hendrycks, Gimpel 2016
    """
    if bias is not None and bias.shape != x.shape[-1:]:
        raise ValueError(f"gelu takes x (..., F) and bias (F); got {list(x.shape)} and {list(bias.shape)}")
    if approximate == "none":
        return gelu_exact(x, bias)
    if approximate == "tanh":
        return gelu_tanh(x, bias)
    raise ValueError(f'gelu: approximate is "none" or "tanh", not {approximate!r}')


def gelu_exact(x, bias):
    xp = xp_of(x)
    z = x if bias is None else x + bias
    cdf = erf(widen(z) * math.sqrt(0.5))
    cdf += 1
    cdf *= 0.5
    y = (z * cdf).astype(x.dtype, copy=False)
    bias_dtype = getattr(bias, "dtype", None)

    def vjp(dy):
        # y = z * cdf(z), and the derivative of the cdf is the density
        wide = widen(z)
        density = xp.exp(wide * wide * -0.5)
        density *= 1 / math.sqrt(2 * math.pi)
        dz = dy * (cdf + wide * density)
        # z = x + bias
        return dz.astype(dy.dtype, copy=False), sum_of_rows(dz, bias_dtype)

    return y, vjp


def gelu_tanh(x, bias):
    xp = xp_of(x)
    a, c = math.sqrt(2 / math.pi), 0.044715
    z = x if bias is None else x + bias
    wide = widen(z)
    t = xp.tanh(wide * (wide * wide * (a * c) + a))
    y = (z * (1 + t) * 0.5).astype(x.dtype, copy=False)
    bias_dtype = getattr(bias, "dtype", None)

    def vjp(dy):
        # y = z * (1 + t) / 2,  t = tanh(a z + a c z³)
        dt = (1 - t * t) * (widen(z) ** 2 * (3 * a * c) + a)
        dz = dy * (0.5 * (1 + t) + 0.5 * z * dt)
        # z = x + bias
        return dz.astype(dy.dtype, copy=False), sum_of_rows(dz, bias_dtype)

    return y, vjp


def sum_of_rows(dz, dtype):
    """The gradient of a bias that was added to every row; None where there is no bias, and no dtype."""
    return dz.sum(tuple(range(dz.ndim - 1))).astype(dtype, copy=False) if dtype else None

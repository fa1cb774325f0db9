"""Softmax and its logarithms. All three subtract the maximum first: exp never overflows, and the result is the same."""

from autograd.arrays import widen, xp_of
from autograd.engine import primitive


@primitive
def softmax(x, *, axis=-1):
    """Positive numbers that sum to one.

    Equation   y_i = exp(x_i) / Σ_j exp(x_j)
    Shapes     x, y (..., V) along any axis
    Gradient   ∂y_i/∂x_j = y_i (δ_ij - y_j), so dx_j = Σ_i dy_i ∂y_i/∂x_j = y_j (dy_j - Σ_i dy_i y_i)
    Saves      y
    Cost       one exp and four passes forward, three passes backward
    Precision  inside at least float32
    Errors     a row that is -inf throughout has no softmax and gives NaN (`attention` gives such a row 0)
    Source     Bridle 1990
    """
    xp = xp_of(x)
    wide = widen(x)
    e = xp.exp(wide - wide.max(axis, keepdims=True))
    y = (e / e.sum(axis, keepdims=True)).astype(x.dtype, copy=False)

    def vjp(dy):
        p, dp = widen(y), widen(dy)
        dx = p * (dp - (dp * p).sum(axis, keepdims=True))
        return (dx.astype(dy.dtype, copy=False),)

    return y, vjp


@primitive
def log_softmax(x, *, axis=-1):
    """Logarithm of softmax, without taking the logarithm of a rounded zero.

    Equation   y_i = x_i - log Σ_j exp(x_j)
    Shapes     x, y (..., V) along any axis
    Gradient   ∂y_i/∂x_j = δ_ij - softmax(x)_j, so dx_j = dy_j - exp(y_j) Σ_i dy_i
    Saves      y
    Cost       one exp and four passes forward, one exp and three passes backward
    Precision  inside at least float32
    """
    xp = xp_of(x)
    shifted = widen(x) - widen(x).max(axis, keepdims=True)
    y = (shifted - xp.log(xp.exp(shifted).sum(axis, keepdims=True))).astype(x.dtype, copy=False)

    def vjp(dy):
        dx = widen(dy) - xp.exp(widen(y)) * widen(dy).sum(axis, keepdims=True)
        return (dx.astype(dy.dtype, copy=False),)

    return y, vjp


@primitive
def logsumexp(x, *, axis=-1, keepdims=False):
    """Logarithm of a sum of exponentials: a smooth maximum.

    Equation   y = log Σ_j exp(x_j)
    Shapes     x (..., V), y (...) or (..., 1) with keepdims, along any axis
    Gradient   ∂y/∂x_j = exp(x_j - y) = softmax(x)_j, so dx_j = dy softmax(x)_j
    Saves      x, top (the largest x), total (log Σ exp(x - top)): apart, since a large top swallows digits of total
    Cost       one exp and three passes forward, one exp and two passes backward
    Precision  inside at least float32
    """
    xp = xp_of(x)
    wide = widen(x)
    top = wide.max(axis, keepdims=True)
    total = xp.log(xp.exp(wide - top).sum(axis, keepdims=True))
    lse = top + total
    y = (lse if keepdims else lse.squeeze(axis)).astype(x.dtype, copy=False)

    def vjp(dy):
        dy = dy.reshape(top.shape)
        return ((dy * xp.exp(widen(x) - top - total)).astype(x.dtype, copy=False),)

    return y, vjp

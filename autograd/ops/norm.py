"""Layer norm and RMS norm.

Both divide a row by its size, so the gradient has a part that undoes growth along the row itself: a step that only
makes the row longer changes nothing, and must receive no gradient.
"""

from autograd.arrays import widen, xp_of
from autograd.engine import primitive


@primitive
def layer_norm(x, weight, bias=None, *, eps=1e-5):
    """Each row to mean 0 and variance 1, then scaled and shifted.

    Equation   x̂ = (x - mean(x)) rstd, rstd = 1 / √(var(x) + eps);  y = x̂ w + b
    Shapes     x, y (..., C), weight (C), bias (C) or None
    Gradient   dx̂ = dy w;  dx = rstd (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂));  dw = Σ dy x̂;  db = Σ dy, sums over all rows
    Saves      normal (x̂), rstd, weight
    Cost       about 8 passes forward, 9 backward
    Precision  statistics in at least float32
    Source     Ba, Kiros, Hinton 2016. The mean and the variance depend on every x of the row: docs/layer_norm.md
    """
    xp = xp_of(x)
    wide = widen(x)
    centered = wide - wide.mean(-1, keepdims=True)
    rstd = 1 / xp.sqrt((centered * centered).mean(-1, keepdims=True) + eps)
    normal = centered * rstd
    y = normal * weight
    if bias is not None:
        y += bias
    x_dtype, bias_dtype = x.dtype, getattr(bias, "dtype", None)

    def vjp(dy):
        dy = widen(dy)
        rows = tuple(range(dy.ndim - 1))
        # y = normal * weight + bias
        dnormal = dy * weight
        dweight = (dy * normal).sum(rows).astype(weight.dtype, copy=False)
        dbias = dy.sum(rows).astype(bias_dtype, copy=False) if bias_dtype else None
        # normal = (x - mean) * rstd
        along = (dnormal * normal).mean(-1, keepdims=True)
        dx = (dnormal - dnormal.mean(-1, keepdims=True) - normal * along) * rstd
        return dx.astype(x_dtype, copy=False), dweight, dbias

    return y.astype(x.dtype, copy=False), vjp


@primitive
def rms_norm(x, weight, *, eps=1e-5):
    """Each row to root mean square 1, then scaled.

    Equation   x̂ = x rstd, rstd = 1 / √(mean(x²) + eps);  y = x̂ w
    Shapes     x, y (..., C), weight (C)
    Gradient   dx̂ = dy w;  dx = rstd (dx̂ - x̂ mean(dx̂ x̂));  dw = Σ dy x̂ over all rows
    Saves      normal (x̂), rstd, weight
    Cost       about 5 passes forward, 7 backward
    Precision  statistics in at least float32
    Source     Zhang, Sennrich 2019
    """
    xp = xp_of(x)
    wide = widen(x)
    rstd = 1 / xp.sqrt((wide * wide).mean(-1, keepdims=True) + eps)
    normal = wide * rstd
    y = (normal * weight).astype(x.dtype, copy=False)
    x_dtype = x.dtype

    def vjp(dy):
        dy = widen(dy)
        # y = normal * weight
        dnormal = dy * weight
        dweight = (dy * normal).sum(tuple(range(dy.ndim - 1))).astype(weight.dtype, copy=False)
        # normal = x * rstd
        dx = (dnormal - normal * (dnormal * normal).mean(-1, keepdims=True)) * rstd
        return dx.astype(x_dtype, copy=False), dweight

    return y, vjp

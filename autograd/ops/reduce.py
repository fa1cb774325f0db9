"""Sums and maxima along axes. The adjoint of a sum is a repetition, as the adjoint of a repetition is a sum."""

from autograd.arrays import widen, xp_of
from autograd.engine import primitive


def restore_axes(y, axis, ndim):
    """Put reduced axes back with length one, so that `y` broadcasts against what it was reduced from."""
    if axis is None or ndim == 0:
        return y.reshape((1,) * ndim)
    axes = axis if isinstance(axis, tuple) else (axis,)
    axes = {a % ndim for a in axes}
    kept = iter(y.shape)
    return y.reshape([1 if i in axes else next(kept) for i in range(ndim)])


@primitive
def sum(x, *, axis=None, keepdims=False):
    """Sum along axes (all of them by default).

    Equation   y = Σ x
    Shapes     x (...), y without the summed axes, or with length one there (keepdims)
    Gradient   dx = dy, repeated along the summed axes
    Saves      nothing
    Cost       one pass
    Precision  half-precision inputs are summed in float32
    """
    xp = xp_of(x)
    y = widen(x).sum(axis, keepdims=keepdims).astype(x.dtype, copy=False)
    shape = x.shape

    def vjp(dy):
        if not keepdims:
            dy = restore_axes(dy, axis, len(shape))
        return (xp.broadcast_to(dy, shape),)

    return y, vjp


@primitive
def mean(x, *, axis=None, keepdims=False):
    """Mean along axes (all of them by default).

    Equation   y = (1/n) Σ x, n the number of elements that go into one result
    Shapes     x (...), y without the averaged axes, or with length one there (keepdims)
    Gradient   dx = dy / n, repeated along the averaged axes
    Saves      nothing
    Cost       one pass
    Precision  half-precision inputs are summed in float32
    """
    xp = xp_of(x)
    y = widen(x).mean(axis, keepdims=keepdims).astype(x.dtype, copy=False)
    shape = x.shape
    n = x.size / (y.size or 1)

    def vjp(dy):
        if not keepdims:
            dy = restore_axes(dy, axis, len(shape))
        return (xp.broadcast_to(dy / n, shape).astype(dy.dtype, copy=False),)

    return y, vjp


@primitive
def max(x, *, axis=None, keepdims=False):
    """Maximum along axes (all of them by default).

    Equation   y = max x
    Shapes     x (...), y without the reduced axes, or with length one there (keepdims)
    Gradient   dx = dy at the maximum, 0 elsewhere; at a tie the convention is that equal maxima share dy equally
    Saves      share (1 / number of maxima where x is maximal, else 0)
    Cost       two passes
    """
    y = x.max(axis, keepdims=keepdims)
    is_max = x == restore_axes(y, axis, x.ndim) if not keepdims else x == y
    share = (is_max / is_max.sum(axis, keepdims=True)).astype(x.dtype)

    def vjp(dy):
        if not keepdims:
            dy = restore_axes(dy, axis, share.ndim)
        return (dy * share,)

    return y, vjp


@primitive
def cumsum(x, *, axis=-1):
    """Running sum along an axis.

    Equation   y_i = x_1 + … + x_i
    Shapes     x, y (...)
    Gradient   dx_j = dy_j + dy_(j+1) + …: x_j is in every sum from j on. A running sum from the other end.
    Saves      nothing
    Cost       one pass
    Precision  half-precision inputs are summed in float32
    Errors     ValueError without an axis to sum along
    """
    if axis is None or x.ndim == 0:
        raise ValueError("cumsum sums along one axis of an array; for all elements in a row, reshape(-1) it first")
    xp = xp_of(x)
    y = xp.cumsum(widen(x), axis).astype(x.dtype, copy=False)

    def vjp(dy):
        backwards = xp.cumsum(xp.flip(widen(dy), axis), axis)
        return (xp.flip(backwards, axis).astype(dy.dtype, copy=False),)

    return y, vjp

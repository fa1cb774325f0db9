"""Moving elements without changing them. Every pullback moves them back, and sums where one was used twice."""

import itertools

import numpy as np

from autograd.arrays import xp_of
from autograd.engine import primitive
from autograd.ops.elementwise import like, unbroadcast


@primitive
def reshape(x, *, shape):
    """The same elements in another shape.

    Equation   y = x, read in row-major order
    Shapes     x (...), y shape; one entry may be -1
    Gradient   dx = dy in the shape of x
    Saves      nothing
    Cost       none for contiguous arrays
    """
    y = x.reshape(shape)
    before = x.shape

    def vjp(dy):
        return (dy.reshape(before),)

    return y, vjp


@primitive
def transpose(x, *, axes=None):
    """Permute axes; None reverses them.

    Equation   y[i_axes] = x[i]
    Shapes     x (...), y (...) permuted
    Gradient   dx = dy under the inverse permutation
    Saves      nothing
    Cost       none: another view of the same memory
    """
    y = x.transpose(axes)
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(a % x.ndim for a in axes)
    inverse = tuple(axes.index(i) for i in range(x.ndim))

    def vjp(dy):
        return (dy.transpose(inverse),)

    return y, vjp


@primitive
def getitem(x, *, index):
    """Slices and integer positions: `x[2:5, ..., 0]`. For arrays of indices see `gather` and `embedding`.

    Equation   y = x[index]
    Shapes     x (...), y as NumPy's basic indexing gives
    Gradient   dx = dy at index, 0 elsewhere
    Saves      nothing
    Cost       none forward, one pass over x backward
    Errors     TypeError for an index array, whose repeated entries would need a sum
    """
    xp = xp_of(x)
    for i in index if isinstance(index, tuple) else (index,):
        if not (i is None or i is Ellipsis or isinstance(i, int | np.integer | slice)):
            raise TypeError(
                f"a Tensor is indexed by slices and integers; for {type(i).__name__} use gather or embedding"
            )
    y = x[index]
    x_like = like(x)

    def vjp(dy):
        dx = xp.zeros(*x_like)
        dx[index] = dy
        return (dx,)

    return y, vjp


@primitive
def concatenate(*xs, axis=0):
    """Join arrays along an axis they have.

    Equation   y = [x_1, x_2, …]
    Shapes     xs (...), equal but for the axis; y with the lengths added
    Gradient   each dx is its slice of dy
    Saves      nothing
    Cost       one pass
    """
    xp = xp_of(*xs)
    y = xp.concatenate(xs, axis)
    ends = itertools.accumulate((x.shape[axis] for x in xs), initial=0)
    lead = (slice(None),) * (axis % y.ndim)
    parts = [(*lead, slice(start, end)) for start, end in itertools.pairwise(ends)]
    dtypes = [x.dtype for x in xs]

    def vjp(dy):
        return tuple(dy[part].astype(dtype, copy=False) for part, dtype in zip(parts, dtypes, strict=True))

    return y, vjp


@primitive
def stack(*xs, axis=0):
    """Join arrays along a new axis.

    Equation   y[i] = x_i (i along the new axis)
    Shapes     xs (...), all equal; y with one more axis, of length len(xs)
    Gradient   dx_i = dy[i]
    Saves      nothing
    Cost       one pass
    """
    xp = xp_of(*xs)
    y = xp.stack(xs, axis)
    dtypes = [x.dtype for x in xs]

    def vjp(dy):
        first = xp.moveaxis(dy, axis, 0)
        return tuple(first[i, ...].astype(dtype, copy=False) for i, dtype in enumerate(dtypes))

    return y, vjp


def split(x, sections, axis=-1):
    """Cut into parts along an axis: a number of equal parts, or a list of lengths. Slices, so nothing new to derive.

    Returns a list of Tensors. ValueError if the parts do not add up to the axis.
    """
    length = x.shape[axis]
    if isinstance(sections, int) and sections < 1:
        raise ValueError(f"split: the number of parts must be at least 1, not {sections}")
    lengths = [length // sections] * sections if isinstance(sections, int) else list(sections)
    total = 0
    for n in lengths:
        total += n
    if total != length:
        raise ValueError(f"split: parts {lengths} add up to {total}, but axis {axis} has length {length}")
    lead = (slice(None),) * (axis % x.ndim)
    parts, start = [], 0
    for n in lengths:
        parts.append(getitem(x, index=(*lead, slice(start, start + n))))
        start += n
    return parts


@primitive
def pad(x, *, widths, value=0.0):
    """Surround with a constant.

    Equation   y = x inside, value outside
    Shapes     x (...); widths: (before, after) for each axis; y longer by before + after
    Gradient   dx = dy inside
    Saves      nothing
    Cost       one pass
    """
    xp = xp_of(x)
    y = xp.pad(x, widths, constant_values=value)
    inside = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))

    def vjp(dy):
        return (dy[inside],)

    return y, vjp


@primitive
def broadcast_to(x, *, shape):
    """Repeat along new axes and axes of length one.

    Equation   y = x, repeated
    Shapes     x (...), y shape
    Gradient   dx = dy summed over the repetitions
    Saves      nothing
    Cost       none forward, one pass backward
    """
    y = xp_of(x).broadcast_to(x, shape)
    x_like = like(x)

    def vjp(dy):
        return (unbroadcast(dy, x_like),)

    return y, vjp

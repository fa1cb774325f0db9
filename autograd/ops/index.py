"""Looking rows up, and adding into them. Each is the other's adjoint; a row looked up twice receives two gradients."""

import math

from autograd.arrays import scatter_add, widen, xp_of
from autograd.engine import primitive
from autograd.ops.elementwise import like


def check_rows(name, ids, n):
    """Ids must be whole numbers in [0, n). NumPy would silently count negative ones from the end."""
    if not hasattr(ids, "dtype"):
        raise TypeError(f"{name}: ids must be an array of integers, not {type(ids).__name__}")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, not {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= n):
        raise ValueError(f"{name}: ids must be in 0 … {n - 1}, but range from {int(ids.min())} to {int(ids.max())}")


@primitive
def embedding(weight, ids):
    """Rows of a table.

    Equation   y_i = W[ids_i]
    Shapes     weight (V, C), ids (...) whole numbers, y (..., C)
    Gradient   dW[v] = Σ dy_i over all i with ids_i = v (0 for rows that were not looked up)
    Saves      ids
    Cost       one pass
    Precision  half-precision gradients are summed in float32
    Errors     ValueError for an id outside 0 … V-1
    """
    check_rows("embedding", ids, len(weight))
    xp = xp_of(weight)
    y = weight[ids]
    shape, dtype = like(weight)

    def dweight(dy, out=None):
        dw = xp.empty(shape, widen(dy).dtype) if out is None or out.dtype != widen(dy).dtype else out
        dw[...] = 0
        scatter_add(dw, ids.reshape(-1), widen(dy).reshape(ids.size, *shape[1:]))
        return dw.astype(dtype, copy=False)

    vjp = (dweight, None)
    return y, vjp


@primitive
def gather(x, ids, *, axis=-1):
    """Pick elements along an axis, a different choice at every position of the others.

    Equation   y[…, i, …] = x[…, ids[…, i, …], …]
    Shapes     x (..., N, ...), ids (..., M, ...) with as many axes, y as ids
    Gradient   dx[…, n, …] = Σ dy over the positions whose id is n
    Saves      ids
    Cost       one pass
    Errors     ValueError for an id outside 0 … N-1
    """
    check_rows("gather", ids, x.shape[axis])
    xp = xp_of(x)
    y = xp.take_along_axis(x, ids, axis)
    shape, dtype = like(x)

    def dx(dy):
        n = math.prod(shape)
        chosen = xp.take_along_axis(xp.arange(n).reshape(shape), ids, axis)  # where in x each y came from
        total = xp.zeros(n, widen(dy).dtype)
        scatter_add(total, chosen.reshape(-1), widen(dy).reshape(-1))
        return total.reshape(shape).astype(dtype, copy=False)

    vjp = (dx, None)
    return y, vjp


@primitive
def index_add(x, rows, values):
    """Add into rows of a table: the adjoint of `embedding`, as an op.

    Equation   y = x, then y[rows_i] += values_i for every i (repeated rows are summed)
    Shapes     x (V, ...), rows (N), values (N, ...), y (V, ...)
    Gradient   dx = dy;  dvalues_i = dy[rows_i]
    Saves      rows
    Cost       one pass
    Errors     ValueError for a row outside 0 … V-1, or values that do not fit
    """
    check_rows("index_add", rows, len(x))
    if values.shape != (len(rows), *x.shape[1:]):
        raise ValueError(f"index_add: values must be {[len(rows), *x.shape[1:]]}, not {list(values.shape)}")
    y = x.copy()
    scatter_add(y, rows, values)
    dtype = values.dtype

    def dx(dy):
        return dy

    def dvalues(dy):
        return dy[rows].astype(dtype, copy=False)

    vjp = (dx, None, dvalues)
    return y, vjp

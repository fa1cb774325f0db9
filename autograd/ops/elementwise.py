"""Arithmetic, element by element, with broadcasting.

Broadcasting repeats a smaller array to fit a larger one. Its adjoint is a sum over the repetitions: an input that was
used n times receives n gradients. `unbroadcast` does that sum, in plain sight at the end of every pullback.
"""

from autograd.arrays import is_half, widen, xp_of
from autograd.engine import primitive


def like(x):
    """Shape and dtype of an array (or of a Python number): all that a pullback needs to know of many inputs."""
    return getattr(x, "shape", ()), getattr(x, "dtype", None)


def unbroadcast(dy, target):
    """Sum `dy` (in at least float32) over the axes along which an input with `like(input) == target` was repeated."""
    shape, dtype = target
    if dy.shape != shape:
        new = dy.ndim - len(shape)
        repeated = tuple(i for i, n in enumerate(dy.shape) if i < new or (shape[i - new] == 1 and n != 1))
        dy = widen(dy).sum(repeated, keepdims=True).reshape(shape)
    return dy.astype(dtype, copy=False)


@primitive
def add(a, b):
    """Sum, broadcast.

    Equation   y = a + b
    Shapes     a, b, y (...), broadcast against each other
    Gradient   da = dy, db = dy, each summed over the axes along which it was repeated
    Saves      nothing
    Cost       one pass
    """
    y = a + b
    a_like, b_like = like(a), like(b)

    def da(dy):
        return unbroadcast(dy, a_like)

    def db(dy):
        return unbroadcast(dy, b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def subtract(a, b):
    """Difference, broadcast.

    Equation   y = a - b
    Shapes     a, b, y (...), broadcast against each other
    Gradient   da = dy, db = -dy, each summed over the axes along which it was repeated
    Saves      nothing
    Cost       one pass
    """
    y = a - b
    a_like, b_like = like(a), like(b)

    def da(dy):
        return unbroadcast(dy, a_like)

    def db(dy):
        return unbroadcast(-dy, b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def multiply(a, b):
    """Product, broadcast.

    Equation   y = a b
    Shapes     a, b, y (...), broadcast against each other
    Gradient   da = dy b, db = dy a, each summed over the axes along which it was repeated
    Saves      b (for da), a (for db)
    Cost       one pass
    """
    y = a * b
    a_like, b_like = like(a), like(b)

    def da(dy):
        return unbroadcast(dy * b, a_like)

    def db(dy):
        return unbroadcast(dy * a, b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def divide(a, b):
    """Quotient, broadcast.

    Equation   y = a / b
    Shapes     a, b, y (...), broadcast against each other
    Gradient   da = dy / b, db = -dy a / b², each summed over the axes along which it was repeated
    Saves      b (for da), a and b (for db)
    Cost       one pass
    Precision  gradients in at least float32: a quotient may leave the range where the sum of several does not
    """
    y = a / b
    a_like, b_like = like(a), like(b)

    def da(dy):
        return unbroadcast(widen(dy) / b, a_like)

    def db(dy):
        return unbroadcast(-widen(dy) / b * (a / b), b_like)  # not by b², which leaves the range of b

    vjp = (da, db)
    return y, vjp


@primitive
def negative(x):
    """Negation.

    Equation   y = -x
    Shapes     x, y (...)
    Gradient   dx = -dy
    Saves      nothing
    Cost       one pass
    """
    y = -x

    def vjp(dy):
        return (-dy,)

    return y, vjp


@primitive
def power(x, exponent):
    """A power. The exponent may be a number or an array.

    Equation   y = x^c
    Shapes     x, exponent, y (...), broadcast against each other
    Gradient   dx = dy c x^(c-1);  dc = dy y log(x), where x > 0; 0 where x = 0 (there y does not depend on c > 0)
    Saves      x and exponent (for dx), x and y (for dc)
    Cost       one power forward, one backward
    Precision  dx in at least float32: c may be tiny where x^(c-1) is huge
    """
    xp = xp_of(x, exponent)
    y = x**exponent
    x_like, c_like = like(x), like(exponent)

    def dx(dy):
        lower = exponent - (exponent != 0)  # where c = 0 the factor c is 0, and x^-1 would be infinite at x = 0
        return unbroadcast(widen(dy) * exponent * widen(x) ** lower, x_like)

    def dc(dy):
        logarithm = xp.log(xp.where(x == 0, 1, x))
        return unbroadcast(dy * y * logarithm, c_like)

    vjp = (dx, dc)
    return y, vjp


@primitive
def exp(x):
    """Exponential.

    Equation   y = e^x
    Shapes     x, y (...)
    Gradient   dx = dy y
    Saves      y
    Cost       one exp
    """
    y = xp_of(x).exp(x)

    def vjp(dy):
        return (dy * y,)

    return y, vjp


@primitive
def log(x):
    """Natural logarithm.

    Equation   y = log x
    Shapes     x, y (...)
    Gradient   dx = dy / x
    Saves      x
    Cost       one log
    """
    y = xp_of(x).log(x)

    def vjp(dy):
        return (dy / x,)

    return y, vjp


@primitive
def log1p(x):
    """Logarithm of 1 + x, exact to the last digit where x is tiny.

    Equation   y = log(1 + x)
    Shapes     x, y (...)
    Gradient   dx = dy / (1 + x)
    Saves      x
    Cost       one log
    """
    y = xp_of(x).log1p(x)

    def vjp(dy):
        return (dy / (1 + x),)

    return y, vjp


@primitive
def sqrt(x):
    """Square root.

    Equation   y = √x
    Shapes     x, y (...)
    Gradient   dx = dy / (2 y), infinite at 0
    Saves      y
    Cost       one square root
    """
    y = xp_of(x).sqrt(x)

    def vjp(dy):
        return (dy / (2 * y),)

    return y, vjp


@primitive
def tanh(x):
    """Hyperbolic tangent.

    Equation   y = (e^x - e^-x) / (e^x + e^-x)
    Shapes     x, y (...)
    Gradient   dx = dy (1 - y²)
    Saves      y
    Cost       one tanh
    """
    y = xp_of(x).tanh(x)

    def vjp(dy):
        return (dy * (1 - y * y),)

    return y, vjp


@primitive
def absolute(x):
    """Absolute value.

    Equation   y = |x|
    Shapes     x, y (...)
    Gradient   dx = dy sign(x); at 0 the convention is 0
    Saves      x
    Cost       one pass
    """
    xp = xp_of(x)
    y = abs(x)

    def vjp(dy):
        return (dy * xp.sign(x),)

    return y, vjp


@primitive
def maximum(a, b):
    """The larger of two, element by element, broadcast.

    Equation   y = max(a, b)
    Shapes     a, b, y (...), broadcast against each other
    Gradient   the larger input gets dy; at a tie the convention is half each
    Saves      a_share (for da), b_share (for db): 0, 1/2 or 1, in dtype of y
    Cost       one pass
    """
    y = xp_of(a, b).maximum(a, b)
    a_like, b_like = like(a), like(b)
    a_share = ((a >= b) * 0.5 + (a > b) * 0.5).astype(y.dtype)
    b_share = 1 - a_share

    def da(dy):
        return unbroadcast(dy * a_share, a_like)

    def db(dy):
        return unbroadcast(dy * b_share, b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def minimum(a, b):
    """The smaller of two, element by element, broadcast.

    Equation   y = min(a, b)
    Shapes     a, b, y (...), broadcast against each other
    Gradient   the smaller input gets dy; at a tie the convention is half each
    Saves      a_share (for da), b_share (for db): 0, 1/2 or 1, in dtype of y
    Cost       one pass
    """
    y = xp_of(a, b).minimum(a, b)
    a_like, b_like = like(a), like(b)
    a_share = ((a <= b) * 0.5 + (a < b) * 0.5).astype(y.dtype)
    b_share = 1 - a_share

    def da(dy):
        return unbroadcast(dy * a_share, a_like)

    def db(dy):
        return unbroadcast(dy * b_share, b_like)

    vjp = (da, db)
    return y, vjp


@primitive
def where(condition, a, b):
    """Choose element by element.

    Equation   y = a where condition, else b
    Shapes     condition, a, b, y (...), broadcast against each other
    Gradient   da = dy where condition, else 0;  db = dy where not condition, else 0;  condition has none
    Saves      condition
    Cost       one pass
    """
    xp = xp_of(condition, a, b)
    y = xp.where(condition, a, b)
    a_like, b_like = like(a), like(b)

    def da(dy):
        return unbroadcast(xp.where(condition, dy, 0), a_like)

    def db(dy):
        return unbroadcast(xp.where(condition, 0, dy), b_like)

    vjp = (None, da, db)
    return y, vjp


@primitive
def clip(x, *, low=None, high=None):
    """Limit to [low, high]; None for no limit on that side.

    Equation   y = min(max(x, low), high)
    Shapes     x, y (...); low and high are numbers, low < high
    Gradient   dx = dy where low <= x <= high, else 0 (at a limit the convention is dy)
    Saves      inside
    Cost       one pass
    """
    xp = xp_of(x)
    y = xp.clip(x, low, high)
    if is_half(x.dtype):
        y = y.astype(x.dtype, copy=False)  # NumPy's clip widens bfloat16
    inside = xp.ones(x.shape, bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high

    def vjp(dy):
        return (dy * inside,)

    return y, vjp


@primitive
def cast(x, *, dtype):
    """The same numbers in another floating point type.

    Equation   y = x rounded to dtype
    Shapes     x, y (...)
    Gradient   dx = dy cast back to the dtype of x
    Saves      nothing
    Cost       one pass; none if x has that dtype already
    Precision  the rounding is treated as the identity, as everywhere in mixed precision
    """
    y = x.astype(dtype, copy=False)
    before = x.dtype

    def vjp(dy):
        return (dy.astype(before, copy=False),)

    return y, vjp

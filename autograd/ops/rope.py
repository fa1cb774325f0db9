"""Rotary position embedding: turn pairs of features by an angle that grows with the position.

The product of a query and a key then depends on the distance between them only, since turning both by the same angle
changes nothing. A rotation's inverse is its transpose, so the pullback turns back.
"""

import numpy as np

from autograd.arrays import widen, xp_of
from autograd.engine import primitive


def angles(positions, D, theta, xp):
    """cos and sin of position · theta^(-2i/D), i = 0 … D/2-1: shape positions.shape + (D/2,), float64."""
    frequency = theta ** (-xp.arange(0, D, 2) / D)
    angle = xp.asarray(positions)[..., None] * frequency
    return xp.cos(angle), xp.sin(angle)


def turn(x, cos, sin, layout, xp):
    """Rotate each pair (a, b) to (a cos - b sin, b cos + a sin)."""
    half = x.shape[-1] // 2
    first, second = (slice(0, half), slice(half, None)) if layout == "half" else (slice(0, None, 2), slice(1, None, 2))
    a, b = x[..., first], x[..., second]
    y = xp.empty_like(x)
    y[..., first] = a * cos - b * sin
    y[..., second] = b * cos + a * sin
    return y


@primitive
def rope(x, *, positions=None, theta=10000.0, layout="half"):
    """Rotary position embedding.

    Equation   pair i at position t turns by t θ^(-2i/D):  (a, b) -> (a cos - b sin, b cos + a sin)
               layout "half" pairs feature i with i + D/2 (GPT-NeoX, Hugging Face), "interleaved" 2i with 2i+1 (Meta)
    Shapes     x, y (B, H, T, D), D even;  positions (T,) or (B, T), None for 0 … T-1
    Gradient   the rotation by the opposite angle:  (da, db) = (dya cos + dyb sin, dyb cos - dya sin)
    Saves      cos, sin
    Cost       one pass over x, T D/2 sines
    Precision  angles in float64 (a float32 product t θ^… is off by whole turns at long positions), x in its own dtype
    Errors     ValueError for an odd D or an unknown layout
    Source     Su et al. 2021, equation 34
    """
    xp = xp_of(x)
    if x.shape[-1] % 2:
        raise ValueError(f"rope turns pairs of features; the head width must be even, not {x.shape[-1]}")
    if layout not in ("half", "interleaved"):
        raise ValueError(f'rope: layout is "half" or "interleaved", not {layout!r}')
    positions = xp.arange(x.shape[-2]) if positions is None else positions
    exact_cos, exact_sin = angles(positions, x.shape[-1], theta, xp)
    if exact_cos.ndim == 3:  # positions (B, T): one axis for the heads
        exact_cos, exact_sin = exact_cos[:, None], exact_sin[:, None]
    wide = np.promote_types(np.float32, widen(x).dtype)
    cos, sin = exact_cos.astype(wide), exact_sin.astype(wide)
    y = turn(widen(x), cos, sin, layout, xp).astype(x.dtype, copy=False)

    def vjp(dy):
        return (turn(widen(dy), cos, -sin, layout, xp).astype(dy.dtype, copy=False),)

    return y, vjp

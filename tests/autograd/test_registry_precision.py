"""Extreme values and narrow dtypes, for every primitive: compared with float64, never by differences.

The reference is the op itself in float64, which `test_registry.py` proves, on the same numbers (already rounded). What
is allowed follows from how a narrow computation can be right at all:

- Each number it writes is rounded: an error of up to eps/2 of its size. In half precision an op computes inside in at
  least float32 and rounds what it writes once, so one eps of the largest entry is twice what it needs; in float32 it
  rounds a few numbers on the way to one result: `ROUNDINGS`.
- Inputs, dy and what is saved between forward and backward are such rounded numbers. Where a result is a small
  difference of large ones (softmax of scores near 1000, 1 - y² where y is nearly 1) no arithmetic brings back what
  their last digit decides. How much it decides is asked of float64: its result again, with each of them moved by eps.
- Underflow: half the smallest number of the dtype; inside of ops, which compute in at least float32, that of float32.

So an op that loses digits which its inputs, dy and saved numbers still had fails. Where the reference is beyond the
dtype's range, infinite is right (and NaN, where two such numbers are added); elsewhere neither is, but in gradients of
a call whose result left the range: a training step that overflows is not made.
"""

import inspect

import hypothesis.strategies as st
import numpy as np
import pytest
from primitive_strategies import STRATEGIES, Floats, drawn
from test_primitives import OURS

from autograd.engine import PRIMITIVES, Tensor, is_floating
from autograd.testing import REGIMES

try:
    from ml_dtypes import finfo
except ImportError:
    finfo = np.finfo

ROUNDINGS = {2: 1, 4: 4, 8: 4}  # by bytes of the coarsest dtype
NUDGES = 4  # float64 runs with everything moved by eps, up or down at random
FLOAT32 = np.finfo(np.float32)

# How large the numbers are that are rounded inside, for the result and each gradient, where that is more than all of
# the above, as in other libraries too.
# gelu: Φ = (1 + erf) / 2 is right to eps; where it is nearly 0, y = x Φ and dx = dy (Φ + x φ), and their sum, have
# fewer digits.
# cross_entropy: log Σ exp of a sum that is at least 1: a small loss is right to eps for each row, not to eps of itself.
# linear_cross_entropy: the same; and p - q, of which nothing but rounding is left where p is 1, is multiplied with the
# weight and with x before anything is saved. Over a row |p - q| sums to 2 at most.
SIZES_INSIDE = {
    "gelu": lambda dy, x, bias=None: [abs(x) if bias is None else abs(x) + abs(bias), abs(dy), abs(dy).sum()],
    "cross_entropy": lambda dy, logits, targets: [np.full(1, targets.size), np.zeros(0), np.zeros(0)],
    "linear_cross_entropy": lambda dy, x, weight, targets: [
        np.full(1, targets.size), 2 * most(dy) * abs(weight), 2 * most(dy) * targets.size * abs(x), np.zeros(0),
    ],
}  # fmt: skip


def most(x):
    return abs(x).max(initial=0)


DTYPES = [
    "float16",
    "float32",
    pytest.param(
        "bfloat16",
        marks=pytest.mark.skipif(finfo is np.finfo, reason="bfloat16 in NumPy needs ml_dtypes: the extra bf16"),
    ),
]
MIXING = [
    name for name in OURS if name == "cast" or PRIMITIVES[name].variadic or len(PRIMITIVES[name].argument_names) > 1
]


def is_float_array(x):
    return hasattr(x, "dtype") and is_floating(x.dtype)


def wide(x):
    return x.astype(np.float64) if is_float_array(x) else np.dtype(np.float64) if isinstance(x, np.dtype) else x


def run(op, inputs, options, dy, between=lambda vjp: None):
    """[result, gradient of each input, …]; dy: an array, or a function of the result. between: sees the pullback."""
    leaves = [Tensor(x, requires_grad=is_float_array(x)) if hasattr(x, "dtype") else x for x in inputs]
    y = op(*leaves, **options)
    if y.requires_grad:
        between(y.node.vjp)
        y.backward(dy)
    return [y.data, *(x.grad if isinstance(x, Tensor) else None for x in leaves)]


def nudged(x, size, rng, least=0.0):
    """Each number moved by `size` of itself (at least by `least`), up or down."""
    if not is_float_array(x):
        return x
    return np.where(np.isinf(x), x, x + np.maximum(size * abs(x), least) * rng.choice([-1, 1], x.shape))


def nudge_saved(vjp, move):
    """Move the arrays that a pullback saved: the free variables of its closures."""
    for closure in vjp if isinstance(vjp, tuple) else (vjp,):
        for cell in (inspect.isfunction(closure) and closure.__closure__) or ():
            if inspect.isfunction(cell.cell_contents):
                nudge_saved(cell.cell_contents, move)
            else:
                cell.cell_contents = move(cell.cell_contents)


def moved_by_rounding(op, inputs, options, dy, exact, size, least):
    """The largest change in float64 of the result and of each gradient when everything is rounded once."""
    rng, largest = np.random.default_rng(0), [0.0] * len(exact)
    for _ in range(NUDGES):
        inputs_nudged = [nudged(x, size, rng) for x in inputs]
        options_nudged = {name: nudged(x, size, rng) for name, x in options.items()}
        others = run(
            op, inputs_nudged, options_nudged, nudged(dy, size, rng),
            between=lambda vjp: nudge_saved(vjp, lambda x: nudged(x, size, rng, least)),
        )  # fmt: skip
        for i, (other, value) in enumerate(zip(others, exact, strict=True)):
            if value is not None:
                largest[i] = max(largest[i], abs(other - value)[np.isfinite(value)].max(initial=0))
    return largest


def require_near_float64(name, case, seed):
    """Result and gradients of a call against the same call in float64."""
    op, floats = PRIMITIVES[name], [x for x in case.inputs if is_float_array(x)]
    with np.errstate(all="ignore"):
        result = op(*case.inputs, **case.options).data
        dy = np.asarray(np.random.default_rng(seed).standard_normal(result.shape)).astype(result.dtype)
        values = run(op, case.inputs, case.options, dy)
        inputs, options = [wide(x) for x in case.inputs], {name: wide(x) for name, x in case.options.items()}
        exact = run(op, inputs, options, wide(dy))
        coarsest = max((x.dtype for x in (*floats, dy)), key=lambda dtype: finfo(dtype).eps)
        eps, least = float(finfo(coarsest).eps), float(finfo(coarsest).smallest_subnormal)
        roundings = ROUNDINGS[coarsest.itemsize]
        changes = moved_by_rounding(op, inputs, options, wide(dy), exact, eps, least)
    overflowed = not np.isfinite(values[0]).all()
    inside = SIZES_INSIDE[name](wide(dy), *inputs) if name in SIZES_INSIDE else [np.zeros(0)] * len(exact)
    for i, value in enumerate(values):
        if value is None:
            continue
        what = f"the gradient of input {i - 1}" if i else "the result"
        assert i == 0 or value.dtype == case.inputs[i - 1].dtype
        size_inside = inside[i].max(initial=0) * FLOAT32.eps
        rounding = roundings * (changes[i] + size_inside) + least + float(FLOAT32.tiny)
        largest, asked = float(finfo(value.dtype).max), np.isfinite(value) | (i == 0 or not overflowed)
        require_near(what, wide(value)[asked], exact[i][asked], largest, roundings * eps, rounding)


def require_near(what, value, exact, largest, rtol, rounding):
    inside = abs(exact) < largest * (1 - rtol)  # False for NaN: e^3000 - e^3000 has no value in float64 either
    beyond = np.isfinite(exact) & ~inside
    lost, turned = inside & ~np.isfinite(value), beyond & (np.sign(value) == -np.sign(exact))
    assert not lost.any(), f"{what} is {value[lost]} where float64 has {exact[lost]}"
    assert not turned.any(), f"{what} is {value[turned]} where float64 has {exact[turned]}"
    error = abs(value[inside] - exact[inside]).max(initial=0)
    scale = abs(exact)[inside].max(initial=0)
    allowed = rtol * scale + rounding
    assert error <= allowed, f"{what} is off by {error:.3g} where {allowed:.3g} is allowed (largest entry {scale:.3g})"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OURS)
@drawn(data=st.data())
def test_narrow_dtypes_and_extreme_values_are_near_float64(name, dtype, data):
    case = data.draw(STRATEGIES[name](Floats(list(REGIMES), [dtype], away=0)))
    require_near_float64(name, case, data.draw(st.integers(0, 99)))


@pytest.mark.parametrize("name", MIXING)
@drawn(data=st.data())
def test_inputs_of_different_dtypes_get_gradients_of_their_own(name, data):
    case = data.draw(STRATEGIES[name](Floats(["normal"], ["float16", "float32", "float64"], away=0)))
    require_near_float64(name, case, data.draw(st.integers(0, 99)))

"""Every primitive against PyTorch, forward and backward, in float64, float32 and float16.

float64: both sides round some ten to a thousand times, at 1e-16 each, and sum in other orders; the worst case measured
(logsumexp of numbers around 1000, where PyTorch's formula cancels three digits) is 3e-14. A wrong formula shows at
once: 1e-12 lies between.

float16 and float32: the error of each side is measured against float64, worst over all cases of a primitive, and ours
may be so many times PyTorch's; where PyTorch is exact, we are. In float16 twice. In float32 four times: exp, tanh and
erf are NumPy's or our own, good to a few units in the last place where PyTorch's vector library has one.
"""

import numpy as np
import pytest
from larger_cases import LARGER, cases_of
from measurements import record
from op_errors import comparable_cases, largest, measure, peer, relative, run_ours, run_theirs
from torch_ops import FEW_DIGITS, NO_HALF, OTHER_CONVENTION, TORCH, torch

import autograd as ag

OURS = sorted(name for name, op in ag.PRIMITIVES.items() if op.reference.__module__.startswith("autograd."))
TOLERANCE = 1e-12
TIMES_THEIRS = {"float32": 4, "float16": 2}
TABLE = "primitives against PyTorch: worst error relative to the largest entry (ours, PyTorch's)"


def misses(errors, dtype):
    """Of the result and the gradients, those that are too far off."""
    if dtype == "float64":
        return [slot.ours for slot in errors if not slot.ours.error <= TOLERANCE]
    bar = TIMES_THEIRS[dtype]
    return [(slot.ours, slot.theirs) for slot in errors if not slot.ours.error <= bar * slot.theirs.error]


def test_every_primitive_has_a_peer_and_larger_cases():
    assert set(OURS) == set(TORCH) == set(LARGER)
    assert set(NO_HALF) <= set(OURS)
    labels = {(name, case.label) for name in OURS for case in cases_of(name)}
    assert set(OTHER_CONVENTION) | set(FEW_DIGITS) <= labels


@pytest.fixture(scope="module")
def worst_of_all():
    """The largest error of every dtype, over all primitives, for the last line of the table."""
    worst, cases = {}, {}
    yield worst, cases
    record(TABLE, f"all {len(cases)}", cases=sum(cases.values()), **worst)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("name", OURS)
def test_agrees_with_pytorch(name, dtype, worst_of_all):
    errors = measure(name, dtype)
    worst, cases = worst_of_all
    cases[name] = len(cases_of(name))
    ours, theirs = largest(slot.ours for slot in errors), largest(slot.theirs for slot in errors)
    if dtype == "float64":
        record(TABLE, name, cases=cases[name], float64=ours)
    else:
        record(TABLE, name, **{dtype: f"{ours:.1e} {theirs:.1e}"})
    worst[dtype] = max(worst.get(dtype, 0.0), ours)
    assert not misses(errors, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", OURS)
def test_results_have_the_dtype_that_pytorch_gives_them(name, dtype):
    """But for cross-entropy, whose loss is at least float32, and an array of whole exponents, which NumPy promotes."""
    for case in comparable_cases(name, dtype):
        ours = run_ours(name, case.cast(dtype), case.options, dtype)[0].dtype
        if name in ("cross_entropy", "linear_cross_entropy") or (name, case.label) == (
            "power",
            "array of whole exponents",
        ):
            assert ours.itemsize >= 4
        elif name != "cast":
            assert ours == dtype


@pytest.mark.parametrize(("name", "label"), OTHER_CONVENTION)
def test_where_conventions_differ_they_still_do(name, label):
    (case,) = [case for case in cases_of(name) if case.label == label]
    arguments = (name, case.inputs, case.options, "float64")
    assert not relative(run_ours(*arguments)[0], run_theirs(*arguments, torch.float64)[0]) <= TOLERANCE


def test_attention_scores_beyond_the_range_of_float16_are_as_good_as_in_pytorch():
    """Queries and keys around 40: their products are near 100 000, the softmax of the scaled ones is ordinary."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 2, 12, 64)) for _ in range(3))
    inputs = [(40 + q / 40).astype("float16"), (40 + k / 40).astype("float16"), v.astype("float16")]
    theirs = peer("attention", inputs, {}, "float16")
    exact = run_theirs("attention", inputs, {}, "float16", torch.float64)
    for a, b, c in zip(run_ours("attention", inputs, {}, "float16"), theirs, exact, strict=True):
        assert relative(a, c) <= 2 * relative(b, c)


KINKS = {
    "absolute": ([np.array([0.0, 1, -1])], {}),
    "relu": ([np.array([0.0, 1, -1])], {}),
    "squared_relu": ([np.array([0.0, 1, -1])], {}),
    "clip": ([np.array([0.0, 1, 2])], {"low": 0.0, "high": 1.0}),
    "maximum": ([np.array([0.0, 1, 2]), np.array([0.0, 1, 1])], {}),
    "minimum": ([np.array([0.0, 1, 2]), np.array([0.0, 1, 1])], {}),
    "max": ([np.array([[3.0, 3, 3, 1], [0, 2, 2, 2]])], {"axis": 1}),
}


@pytest.mark.parametrize("name", KINKS)
def test_at_kinks_and_ties_both_choose_alike(name):
    arguments = (name, *KINKS[name], "float64")
    for ours, theirs in zip(run_ours(*arguments), run_theirs(*arguments, torch.float64), strict=True):
        assert np.array_equal(ours, theirs)


def slightly_wrong(body, what):
    """An op whose result, or every gradient, is too large by one part in a hundred million."""

    def larger(x):
        return None if x is None else (x * (1 + 1e-8)).astype(x.dtype)

    def wrong(*inputs, **options):
        y, vjp = body(*inputs, **options)
        if what == "result":
            return larger(y), vjp
        if isinstance(vjp, tuple):
            return y, tuple(f and (lambda dy, f=f: larger(f(dy))) for f in vjp)
        return y, lambda dy: [larger(dx) for dx in vjp(dy)]

    return wrong


@pytest.mark.parametrize("what", ["result", "gradient"])
@pytest.mark.parametrize("name", OURS)
def test_an_error_in_the_eighth_digit_is_noticed(name, what, monkeypatch):
    op = ag.PRIMITIVES[name]
    monkeypatch.setattr(op, "reference", slightly_wrong(op.reference, what))
    assert misses(measure(name, "float64"), "float64")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rounding_at_every_step_is_noticed(monkeypatch, dtype):
    """SiLU computed in float16 throughout."""

    def silu(x):
        x = x.astype("float16")
        s = 1 / (1 + np.exp(-x))
        y = (x * s).astype(dtype)

        def vjp(dy):
            return ((dy.astype("float16") * (s * (1 + x * (1 - s)))).astype(dtype),)

        return y, vjp

    monkeypatch.setattr(ag.PRIMITIVES["silu"], "reference", silu)
    assert misses(measure("silu", dtype), dtype)

"""The optimizer's kernels against the rules that stand in tinyllm: every element, at awkward sizes and values."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import strict_device

import autograd as ag
from autograd.kernels import load
from tinyllm.training.optimizers import PIECE, adamw, lion, sgd
from tinyllm.training.parameter_store import scale, sum_of_squares

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba.launch import at_most  # noqa: E402

U = 2.0**-24  # what one rounding to float32 adds, relative to the result
SMALLEST = 2.0**-149  # and at least, where numbers are subnormal
SIZES = [0, 1, 31, 8191, 8192, 8193, 20_011, PIECE + 70]
ADAMW = {"learning_rate": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8}
SGD = {"learning_rate": 1e-2, "momentum": 0.9, "nesterov": False}
LION = {"learning_rate": 1e-3, "betas": (0.9, 0.99)}
OPTIONS = {adamw: ADAMW | {"step": 3}, sgd: SGD, lion: LION}


def gradient(size, seed):
    """Normal numbers of very different sizes, some of them 0."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal(size) * np.exp(4 * rng.standard_normal(size))
    return np.where(rng.random(size) < 0.1, 0, g).astype(np.float32)


def beginning(size, states):
    """Parameters, and as many state arrays of zeros."""
    return [gradient(size, 100), *np.zeros((states, size), np.float32)]


def by_kernel(rule, *arrays, **options):
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        result = rule(*arrays, **options)
    assert ag.kernels_used() == {rule.name: {"numba": 1}}
    return result


def assert_within(kernel, reference, bound):
    a, b = kernel.astype(np.float64), reference.astype(np.float64)
    assert (abs(a - b) <= bound).all(), f"{(abs(a - b) / bound).max():.3g} times the bound"


def assert_one_adamw_step_agrees(p, g, m, v, *, step, weight_decay):
    """The bound of each array, in roundings (U) of the terms that are added; both sides have rounded each of them.

    m: β1 m and (1 - β1) g may cancel, so of both, 4 U. v: its terms are positive, 6 U. p: 4 U of p, and 16 U of the
    update that the terms of m would make together. Returns the arrays of the reference after the step.
    """
    options = ADAMW | {"step": step, "weight_decay": weight_decay}
    kernel, reference = ([x.copy() for x in (p, m, v)] for _ in range(2))
    by_kernel(adamw, kernel[0], g, *kernel[1:], **options)
    adamw(reference[0], g, *reference[1:], **options)
    (beta1, beta2), rate = ADAMW["betas"], ADAMW["learning_rate"] / (1 - ADAMW["betas"][0] ** step)
    terms = beta1 * abs(m.astype(np.float64)) + (1 - beta1) * abs(g.astype(np.float64))
    root = np.sqrt(reference[2].astype(np.float64) / (1 - beta2**step)) + ADAMW["eps"]
    assert_within(kernel[1], reference[1], 4 * U * terms + 4 * SMALLEST)
    assert_within(kernel[2], reference[2], 6 * U * reference[2].astype(np.float64) + 4 * SMALLEST)
    size_of_p = abs(p.astype(np.float64)) + abs(reference[0].astype(np.float64))
    assert_within(kernel[0], reference[0], 4 * U * size_of_p + 16 * U * rate * terms / root + 4 * SMALLEST)
    return reference


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_adamw_equals_its_rule_in_every_element_over_20_steps(size, weight_decay):
    p, m, v = beginning(size, 2)
    for step in range(1, 21):
        p, m, v = assert_one_adamw_step_agrees(p, gradient(size, step), m, v, step=step, weight_decay=weight_decay)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_sgd_equals_its_rule_in_every_element_over_20_steps(size, weight_decay, nesterov):
    """velocity within 6 U of its terms μ velocity, g and λ p; p within 4 U of itself and of lr times those terms."""
    p, velocity = beginning(size, 1)
    options = SGD | {"nesterov": nesterov, "weight_decay": weight_decay}
    for step in range(20):
        g, kernel, reference = gradient(size, step), (p.copy(), velocity.copy()), (p.copy(), velocity.copy())
        by_kernel(sgd, kernel[0], g, kernel[1], **options)
        sgd(reference[0], g, reference[1], **options)
        exact = (abs(x.astype(np.float64)) for x in (velocity, g, p))
        terms = sum(factor * x for factor, x in zip((0.9, 1, weight_decay), exact, strict=True))
        assert_within(kernel[1], reference[1], 6 * U * terms + 4 * SMALLEST)
        size_of_p = abs(p.astype(np.float64)) + abs(reference[0].astype(np.float64))
        assert_within(kernel[0], reference[0], 4 * U * size_of_p + 1e-2 * 10 * U * terms + 4 * SMALLEST)
        p, velocity = reference


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("size", SIZES)
def test_lion_equals_its_rule_in_every_element_over_20_steps(size, weight_decay):
    """m within 4 U of its terms; p within 4 U of itself where the sign is certain: |c| above 4 U of its terms."""
    p, m = beginning(size, 1)
    for step in range(20):
        g, kernel, reference = gradient(size, step), (p.copy(), m.copy()), (p.copy(), m.copy())
        by_kernel(lion, kernel[0], g, kernel[1], **LION, weight_decay=weight_decay)
        lion(reference[0], g, reference[1], **LION, weight_decay=weight_decay)
        exact_m, exact_g = m.astype(np.float64), g.astype(np.float64)
        assert_within(kernel[1], reference[1], 4 * U * (0.99 * abs(exact_m) + 0.01 * abs(exact_g)) + 4 * SMALLEST)
        terms = 0.9 * abs(exact_m) + 0.1 * abs(exact_g)
        certain = (abs(0.9 * exact_m + 0.1 * exact_g) > 4 * U * terms) | (terms == 0)
        assert certain.sum() >= 0.999 * size
        bound = 4 * U * (abs(p.astype(np.float64)) + 2 * LION["learning_rate"]) + np.where(certain, 0, np.inf)
        assert_within(kernel[0], reference[0], bound + 4 * SMALLEST)
        p, m = reference


def test_errors_do_not_grow_in_20_steps_alone():
    """Kernel and rule each from its own last step: p within 20 steps' worth of roundings of its size and its steps."""
    kernel, reference = beginning(20_011, 2), beginning(20_011, 2)
    largest = abs(reference[0].astype(np.float64))
    for step in range(1, 21):
        g, options = gradient(20_011, step), ADAMW | {"step": step, "weight_decay": 0.1}
        by_kernel(adamw, kernel[0], g, *kernel[1:], **options)
        adamw(reference[0], g, *reference[1:], **options)
        largest = np.maximum(largest, abs(reference[0].astype(np.float64)))
    assert_within(kernel[0], reference[0], 20 * U * (2 * largest + 16 * ADAMW["learning_rate"]))


EXTREMES = np.float32([0, 1e-45, -1e-40, 1e-30, -1e-23, 1e-12, 1e12, -1e15, 1e18])


@pytest.mark.parametrize("step", [1, 1000])
def test_adamw_with_gradients_that_are_zero_tiny_or_huge(step):
    g, earlier = (x.ravel() for x in np.meshgrid(EXTREMES, EXTREMES))
    m, v = earlier * np.float32(0.1), earlier * earlier
    p = np.ones_like(g)
    for weight_decay in (0.0, 0.1):
        assert_one_adamw_step_agrees(p, g, m, v, step=step, weight_decay=weight_decay)


def test_where_nothing_ever_came_nothing_moves():
    p, (g, m, v) = np.ones(40, np.float32), np.zeros((3, 40), np.float32)
    by_kernel(adamw, p, g, m, v, **ADAMW, step=1, weight_decay=0.0)
    assert (p == 1).all()
    assert not m.any()
    assert not v.any()


@pytest.mark.parametrize("rule", [adamw, sgd, lion], ids=repr)
def test_what_is_not_finite_ends_as_in_the_rule(rule):
    """Infinities, NaN, and squares that overflow: in a gradient, and in a state."""
    values = np.float32([1, np.inf, -np.inf, np.nan, 3e19, -3e38])
    inputs = [x.ravel() for x in np.meshgrid(values[[0, 0, 3]], *[values] * (3 if rule is adamw else 2))]
    if rule is adamw:
        inputs[3] = abs(inputs[3])
    options = OPTIONS[rule]
    kernel, reference = ([x.copy() for x in inputs] for _ in range(2))
    with np.errstate(all="ignore"):
        rule(*reference, **options, weight_decay=0.1)
    by_kernel(rule, *kernel, **options, weight_decay=0.1)
    for a, b in zip(kernel, reference, strict=True):
        assert (np.isnan(a) == np.isnan(b)).all()
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 31, 8191, 8192, 8193, 20_011, 3_000_001])
def test_the_sum_of_squares_is_rounded_once(size):
    g = gradient(size, 0)
    exact = math.fsum(np.square(g.astype(np.float64)))
    got = by_kernel(sum_of_squares, g)
    assert got.dtype == np.float32
    assert got == np.float32(exact)
    assert sum_of_squares(g) == pytest.approx(exact, rel=1e-3)


def test_the_sum_of_squares_is_finite_exactly_where_float32_can_hold_it():
    g = gradient(20_011, 0)
    assert by_kernel(sum_of_squares, g[:0]) == 0
    for at in (0, 8191, 8192, 20_010):
        for value in (np.inf, -np.inf, np.nan, 1e20):  # 1e40 is beyond float32
            broken = g.copy()
            broken[at] = value
            got = by_kernel(sum_of_squares, broken)
            assert np.isnan(got) if np.isnan(value) else np.isposinf(got)
    assert by_kernel(sum_of_squares, np.full(3, 1e19, np.float32)) == pytest.approx(3e38, rel=1e-6)
    # squares that float32 cannot hold, of a sum that it can
    assert by_kernel(sum_of_squares, np.full(100_000, 1e-23, np.float32)) == pytest.approx(1e-41, rel=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_scaling_is_the_same_to_the_bit(size):
    kernel, reference = gradient(size, 0), gradient(size, 0)
    by_kernel(scale, kernel, factor=0.3)
    scale(reference, factor=0.3)
    assert kernel.tobytes() == reference.tobytes()


def run_each_rule(size):
    """All arrays after two steps of each rule, a scaling, and a sum of squares."""
    p, m, v = beginning(size, 2)
    q, velocity = beginning(size, 1)
    r, mean = beginning(size, 1)
    with ag.use_kernels("numba"):
        for step in (1, 2):
            g = gradient(size, step)
            adamw(p, g, m, v, **ADAMW, step=step, weight_decay=0.1)
            sgd(q, g, velocity, **SGD, weight_decay=0.1)
            lion(r, g, mean, **LION, weight_decay=0.1)
            scale(g, factor=0.3)
        return [p, m, v, q, velocity, r, mean, g, np.asarray(sum_of_squares(p))]


def test_the_same_bits_from_run_to_run_and_on_one_thread():
    first, again = run_each_rule(300_007), run_each_rule(300_007)
    with at_most(1):
        alone = run_each_rule(300_007)
    for a, b, c in zip(first, again, alone, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def read_only(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: np.repeat(x, 2)[::2],
        strict_device.asarray,
    ],
    ids=["float64", "float16", "strided", "on a device"],
)
def test_what_the_kernels_do_not_do_is_left_to_the_rules(change):
    def arrays():
        return [change(x) for x in (gradient(100, 1), gradient(100, 2), *np.full((2, 100), 0.5, np.float32))]

    def both():
        p, g, m, v = arrays()
        adamw(p, g, m, v, **ADAMW, step=1, weight_decay=0.1)
        q, h, velocity, _ = arrays()
        sgd(q, h, velocity, **SGD, weight_decay=0.1)
        r, h, mean, _ = arrays()
        lion(r, h, mean, **LION, weight_decay=0.1)
        scale(h, factor=0.3)
        return [x.get() if hasattr(x, "get") else x for x in (p, m, v, q, velocity, r, mean, h, sum_of_squares(q))]

    with np.errstate(over="ignore", invalid="ignore"):  # gradient() is too large for float16
        expected = both()
        ag.kernels_used(reset=True)
        with ag.use_kernels("numba"):
            got = both()
    declined = {"numba declined": 1, "reference": 1}
    assert ag.kernels_used() == dict.fromkeys(("adamw", "sgd", "lion", "scale", "sum_of_squares"), declined)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_different_kinds_or_sizes_are_left_to_the_rules():
    p, g, m, v = np.ones((4, 100), np.float32)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        adamw(p, g, m.astype(np.float64), v, **ADAMW, step=1, weight_decay=0.1)
        with pytest.raises(ValueError, match="could not be broadcast"):
            adamw(p, g[:50], m, v, **ADAMW, step=1, weight_decay=0.1)
        assert sum_of_squares(read_only(g)) == 100
    assert ag.kernels_used()["adamw"] == {"numba declined": 2, "reference": 2}
    assert ag.kernels_used()["sum_of_squares"] == {"numba declined": 1, "reference": 1}


EVERY_RULE_ONCE = """
import sys
sys.path[:0] = ["tests/autograd", "tests/autograd/backends"]
from test_numba_optimizer import SIZES, run_each_rule
for size in SIZES:
    run_each_rule(size)
"""


def test_every_kernel_stays_within_its_arrays(tmp_path):
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", EVERY_RULE_ONCE], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr

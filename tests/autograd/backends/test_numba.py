"""Every Numba kernel against its reference: results and gradients, at the cases of the op and at awkward sizes."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from primitive_cases import CASES

import autograd as ag
from autograd.engine import PRIMITIVES, Tensor
from autograd.kernels import load
from autograd.testing import sample_array

pytest.importorskip("numba")
load(["numba"])
KERNELS = sorted(name for name, op in PRIMITIVES.items() if "numba" in op.kernels)
RTOL = 3e-6  # of the largest entry: some ten roundings in float32


def run(name, inputs, options, dy_seed=0):
    """[result, gradient of each float input]"""
    leaves = [Tensor(x, requires_grad=x.dtype.kind == "f") if isinstance(x, np.ndarray) else x for x in inputs]
    y = PRIMITIVES[name](*leaves, **options)
    dy = np.asarray(np.random.default_rng(dy_seed).standard_normal(y.shape), y.dtype)
    y.backward(dy)
    return [y.data, *(x.grad for x in leaves if isinstance(x, Tensor) and x.requires_grad)]


def assert_near(a, b, what):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert np.abs(a - b).max(initial=0) <= RTOL * max(np.abs(b).max(initial=0), 1e-30), what


def compare(name, inputs, options):
    """Kernel and reference; returns whether the kernel ran."""
    if name == "dropout":
        options = options | {"seed": 3}
    expected = run(name, inputs, options)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        got = run(name, inputs, options)
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_near(a, b, f"{name}: {'result' if i == 0 else f'gradient {i - 1}'}")
    return ag.kernels_used()[name]["numba"] > 0


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_equal_their_references_on_every_case(name):
    ran = [compare(name, case.cast("float32"), case.options) for case in CASES[name] if case.narrow]
    assert sum(ran) >= len(ran) / 2, f"the kernel of {name} declined {len(ran) - sum(ran)} of {len(ran)} cases"


SIZES = [1, 31, 8191, 8192, 8193, 20_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in KERNELS if name in ("gelu", "silu", "swiglu")])
def test_elementwise_kernels_at_sizes_that_do_not_divide_evenly(name, size):
    inputs = [3 * sample_array((size,), "float32", seed=i) for i in range(2 if name == "swiglu" else 1)]
    assert compare(name, inputs, {})


@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits_from_run_to_run_and_on_one_thread(name):
    import numba

    case = max((case for case in CASES[name] if case.narrow), key=lambda case: sum(map(np.size, case.inputs)))
    options = case.options | ({"seed": 3} if name == "dropout" else {})
    with ag.use_kernels("numba"):
        first = run(name, case.cast("float32"), options)
        threads = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            alone = run(name, case.cast("float32"), options)
        finally:
            numba.set_num_threads(threads)
        again = run(name, case.cast("float32"), options)
    for a, b, c in zip(first, alone, again, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_finite_and_near_float64_far_from_zero(approximate):
    x = np.concatenate([np.linspace(-40, 40, 4001), [-1e4, -90.0, 90.0, 1e4, 0.0]]).astype(np.float32)
    exact = run("gelu", [x.astype(np.float64)], {"approximate": approximate})
    with ag.use_kernels("numba"):
        got = run("gelu", [x], {"approximate": approximate})
    for a, b in zip(got, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=5e-6)


def test_the_formulas_are_as_exact_as_they_say_and_keep_nan():
    from numba import vectorize

    from autograd.backends.numba import formulas

    @vectorize(["float32(float32)"], nopython=True)
    def exp(x):
        return formulas.exp(x)

    @vectorize(["float32(float32)"], nopython=True)
    def erf(x):
        return formulas.erf(x)

    x = np.linspace(-63.9, 39.9, 100_001).astype(np.float32)
    np.testing.assert_allclose(exp(x), np.exp(x.astype(np.float64)), rtol=2e-7)
    assert exp(np.array([-64.1, -1e9, -np.inf, 40.0, 1e9, np.inf], np.float32)).tolist()[:3] == [0, 0, 0]
    assert np.isnan(exp(np.float32(np.nan)))
    x = np.linspace(-5, 5, 100_001).astype(np.float32)
    np.testing.assert_allclose(erf(x), ag.arrays.erf(x.astype(np.float64)), rtol=0, atol=5e-7)


@pytest.mark.parametrize("name", [name for name in KERNELS if name not in ("embedding", "dropout")])
def test_nan_in_is_nan_out(name):
    case = next(case for case in CASES[name] if case.narrow and min(map(np.size, case.inputs)) > 1)
    inputs = case.cast("float32")
    inputs[0] = inputs[0].copy()
    inputs[0][(0,) * inputs[0].ndim] = np.nan
    with ag.use_kernels("numba"):
        assert np.isnan(run(name, inputs, case.options)[0]).any()


def test_what_a_kernel_does_not_do_falls_back_and_is_counted():
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        ag.gelu(np.ones(3))  # float64
        ag.gelu(np.ones(3, np.float16))
    assert ag.kernels_used()["gelu"] == {"numba declined": 2, "reference": 2}


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


GELU = (
    "import numpy as np, autograd as ag\n"
    "with ag.use_kernels('numba'):\n"
    "    print(ag.gelu(np.ones(3, np.float32)).data[0].round(4))\n"
    "print(dict(ag.kernels_used()['gelu']))\n"
)


def test_without_numba_one_warning_and_the_reference():
    done = python("import sys; sys.modules['numba'] = None\n" + GELU * 2)
    assert done.stdout.splitlines()[:2] == ["0.8413", "{'reference': 1}"]
    assert done.stderr.count("the kernels 'numba' cannot be used here") == 1


def test_with_the_compiler_switched_off_the_reference_runs():
    done = python(GELU, NUMBA_DISABLE_JIT="1")
    assert done.stdout.splitlines() == ["0.8413", "{'reference': 1}"]
    assert not done.stderr


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    done = python(GELU, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.stdout.splitlines() == ["0.8413", "{'numba': 1}"]


def test_kernels_check_bounds_when_told_to():
    code = "import warnings; warnings.simplefilter('error')\n" + GELU
    assert python(code, NUMBA_BOUNDSCHECK="1").stdout.splitlines() == ["0.8413", "{'numba': 1}"]


def test_importing_kernels_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(["numba"])

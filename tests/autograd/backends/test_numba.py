"""Every Numba kernel against its reference: results and gradients, at the cases of the op and at awkward sizes."""

import contextlib
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from primitive_cases import CASES

import autograd as ag
from autograd.engine import PRIMITIVES, Tensor, is_floating
from autograd.kernels import load
from autograd.testing import sample_array

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba.launch import at_most  # noqa: E402

DTYPES = ["float32", "float16"]
with contextlib.suppress(ImportError):
    from ml_dtypes import bfloat16

    DTYPES.append(bfloat16)
KERNELS = sorted(name for name, op in PRIMITIVES.items() if "numba" in op.kernels)
RTOL = 3e-6  # of the largest entry: some ten roundings in float32


def run(name, inputs, options, dy_seed=0):
    """[result, gradient of each float input]"""
    leaves = [Tensor(x, requires_grad=is_floating(x.dtype)) if isinstance(x, np.ndarray) else x for x in inputs]
    y = PRIMITIVES[name](*leaves, **options)
    dy = np.asarray(np.random.default_rng(dy_seed).standard_normal(y.shape), y.dtype)
    y.backward(dy)
    return [y.data, *(x.grad for x in leaves if isinstance(x, Tensor) and x.requires_grad)]


def assert_near(a, b, what, floor=1e-30):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert np.abs(a - b).max(initial=0) <= RTOL * max(np.abs(b).max(initial=0), floor), what


REQUIRED = {"dropout": {"seed": 3}, "cast": {"dtype": np.dtype(np.float16)}}  # options that cases leave out


def compare(name, inputs, options):
    """Kernel and reference; returns whether the kernel ran."""
    options = options | REQUIRED.get(name, {})
    expected = run(name, inputs, options)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        got = run(name, inputs, options)
    # A gradient may be what is left where terms of order one cancel (attention to two keys): a few roundings of those.
    floor = 0.1 * max(float(np.abs(x).max(initial=0)) for x in expected) if name == "attention" else 1e-30
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_near(a, b, f"{name}: {'result' if i == 0 else f'gradient {i - 1}'}", floor)
    return ag.kernels_used()[name]["numba"] > 0


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_equal_their_references_on_every_case(name):
    ran = [compare(name, case.cast("float32"), case.options) for case in CASES[name] if case.narrow]
    least = 1 if name == "add" else len(ran) / 2  # its kernel is for arrays that lie alike, most cases are not
    assert sum(ran) >= least, f"the kernel of {name} declined {len(ran) - sum(ran)} of {len(ran)} cases"


SIZES = [1, 31, 8191, 8192, 8193, 20_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name in KERNELS if name in ("gelu", "silu", "swiglu")])
def test_elementwise_kernels_at_sizes_that_do_not_divide_evenly(name, size):
    inputs = [3 * sample_array((size,), "float32", seed=i) for i in range(2 if name == "swiglu" else 1)]
    assert compare(name, inputs, {})


ROWS, LAYOUTS = [(1037, 67), (131, 1000), (20_011, 1), (3, 20_000)], ["contiguous", "transposed", "strided"]
FAMILIES = {
    "softmax": "x",
    "log_softmax": "x",
    "logsumexp": "x",
    "layer_norm": "xvv",
    "rms_norm": "xv",
    "swiglu": "xx",
    "silu": "x",
    "dropout": "x",
    "embedding": "x",
    "cross_entropy": "x",
}  # what they take: x rows, v one number for each column


def large(name, shape, layout="contiguous"):
    """Inputs with more elements than one thread does alone, in blocks that do not come out even, and options."""
    sizes = {"x": shape, "v": shape[1:]}
    inputs = [sample_array(sizes[kind], "float32", layout=layout, seed=i) for i, kind in enumerate(FAMILIES[name])]
    rng = np.random.default_rng(0)
    if name == "embedding":
        inputs.append(rng.integers(0, len(inputs[0]), (7, 311)))
    if name == "cross_entropy":
        targets = rng.integers(0, shape[1], shape[0])
        inputs.append(np.where(rng.random(shape[0]) < 0.1, -100, targets))
    smoothing = 0.1 if shape[1] > 1 else 0.0  # with one class the gradient is 0, or with smoothing its rounding
    options = {"dropout": {"rate": 0.3, "seed": 3}, "cross_entropy": {"label_smoothing": smoothing}}
    return inputs, options.get(name, {})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_equal_their_references_at_large_and_awkward_sizes(name, shape, layout):
    if name in ("layer_norm", "rms_norm") and shape[1] == 1:
        pytest.skip("the gradient of a norm of one number is rounding")
    assert compare(name, *large(name, shape, layout))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (2, 1, 0, 3), (3, 1, 2, 0)], ids=str)
@pytest.mark.parametrize("each", [False, True])
def test_rope_in_any_order_in_memory_and_at_any_positions(layout, order, each):
    B, H, T, D = 3, 5, 67, 34
    shape = tuple((B, H, T, D)[axis] for axis in order)
    x = sample_array(shape, "float32").transpose(np.argsort(order))
    assert x.shape == (B, H, T, D)
    positions = np.random.default_rng(0).integers(0, 1000, (B, T) if each else T)
    assert compare("rope", [x], {"positions": positions, "layout": layout})


def test_dropout_draws_the_same_elements_as_the_reference():
    x = sample_array((6, 20_011), "float32")
    for seed in (0, 2**40 + 5, np.array([1, 2, 3, 2**63 - 1, 0, 7])):
        expected = ag.dropout(x, rate=0.3, seed=seed).data
        with ag.use_kernels("numba"):
            assert ag.dropout(x, rate=0.3, seed=seed).data.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits_from_run_to_run_and_on_one_thread(name):
    if name in FAMILIES:
        inputs, options = large(name, (1037, 67))
    else:
        case = max((case for case in CASES[name] if case.narrow), key=lambda case: sum(map(np.size, case.inputs)))
        inputs, options = case.cast("float32"), case.options | REQUIRED.get(name, {})
    with ag.use_kernels("numba"):
        first = run(name, inputs, options)
        with at_most(1):
            alone = run(name, inputs, options)
        again = run(name, inputs, options)
    for a, b, c in zip(first, alone, again, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.mark.parametrize("name", FAMILIES)
def test_inputs_are_read_only_to_kernels_and_may_be_so(name):
    inputs, options = large(name, (1037, 67))
    before = [x.copy() for x in inputs]
    for x in inputs:
        x.flags.writeable = False
    leaves = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    with ag.use_kernels("numba"):
        y = PRIMITIVES[name](*leaves, **options)
        dy = np.ones(y.shape, np.float32)
        dy.flags.writeable = False
        y.backward(dy)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(inputs, before, strict=True))


@pytest.mark.parametrize("name", [name for name, kinds in FAMILIES.items() if len(kinds) > 1])
def test_a_frozen_input_changes_nothing_for_the_others(name):
    inputs, options = large(name, (131, 17))
    with ag.use_kernels("numba"):
        every = run(name, inputs, options)[1:]
        for frozen in range(len(inputs)):
            leaves = [Tensor(x, requires_grad=i != frozen) for i, x in enumerate(inputs)]
            y = PRIMITIVES[name](*leaves, **options)
            y.backward(np.random.default_rng(0).standard_normal(y.shape).astype(np.float32))
            for i, leaf in enumerate(leaves):
                assert leaf.grad is None if i == frozen else leaf.grad.tobytes() == every[i].tobytes()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "cross_entropy"])
def test_masked_entries_and_rows_are_as_in_the_reference(name):
    x = sample_array((5, 19), "float32")
    x[0, 3:] = -np.inf
    x[1] = -np.inf
    x[2, 4] = np.nan
    x[3, 5] = np.inf
    inputs, options = ([x, np.zeros(5, int)], {"reduction": "none"}) if name == "cross_entropy" else ([x], {})
    with np.errstate(invalid="ignore"):
        expected = run(name, inputs, options)
        with ag.use_kernels("numba"):
            got = run(name, inputs, options)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6)
    assert np.isnan(got[0][1:4]).reshape(3, -1).any(1).all()


def test_nothing_of_an_ignored_target_reaches_the_loss():
    x = sample_array((4, 9), "float32")
    x[1] = np.nan
    with ag.use_kernels("numba"):
        loss, dx = run("cross_entropy", [x, np.array([0, -100, 3, 8])], {})
        nothing = run("cross_entropy", [x, np.full(4, -100)], {})
    assert np.isfinite(loss)
    assert np.isfinite(dx).all()
    assert not dx[1].any()
    assert nothing[0] == 0
    assert not nothing[1].any()


def test_the_loss_says_what_is_wrong_with_targets_in_the_words_of_the_reference():
    x = np.zeros((2, 3), np.float32)
    for targets, options in [
        (np.array([0, 3]), {}),
        (np.array([0, 1.0]), {}),
        (np.array([0, 1]), {"reduction": "max"}),
    ]:
        with pytest.raises((ValueError, TypeError)) as expected:
            ag.cross_entropy(x, targets, **options)
        with ag.use_kernels("numba"), pytest.raises((ValueError, TypeError)) as got:
            ag.cross_entropy(x, targets, **options)
        assert str(got.value) == str(expected.value)


def test_the_gradient_of_a_table_lands_in_its_buffer():
    weight, ids = Tensor(np.ones((50, 7), np.float32), requires_grad=True), np.array([3, 3, 49])
    weight.buffer = buffer = np.full((50, 7), np.nan, np.float32)
    with ag.use_kernels("numba"):
        ag.embedding(weight, ids).sum().backward()
    assert weight.grad is buffer
    assert buffer.sum(1).tolist() == [14 if v == 3 else 7 if v == 49 else 0 for v in range(50)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 1), (1037, 67), (20_011, 1), (3, 20_000), (64, 257), (65, 256)], ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_with_a_bias_at_awkward_sizes(approximate, shape, layout):
    x, bias = sample_array(shape, "float32", layout=layout), sample_array(shape[1:], "float32", layout="reversed")
    assert compare("gelu", [x, bias], {"approximate": approximate})
    assert compare("gelu", [x.reshape(1, *shape), bias], {"approximate": approximate})


def test_the_gradient_of_gelus_bias_is_the_same_to_the_bit_on_one_thread():
    inputs = [sample_array((1037, 67), "float32"), sample_array((67,), "float32")]
    with ag.use_kernels("numba"):
        first = run("gelu", inputs, {})
        with at_most(1):
            alone = run("gelu", inputs, {})
    assert [x.tobytes() for x in first] == [x.tobytes() for x in alone]


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
        assert np.isnan(run(name, inputs, case.options | REQUIRED.get(name, {}))[0]).any()


def test_what_a_kernel_does_not_do_falls_back_and_is_counted():
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        ag.gelu(np.ones(3))  # float64
        ag.gelu(np.ones(3, np.longdouble))
    assert ag.kernels_used()["gelu"] == {"numba declined": 2, "reference": 2}


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, timeout=300
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


A_STEP = """
import hashlib, numpy as np, autograd as ag
from autograd.engine import Tensor
x, w, u = (Tensor(np.random.default_rng(i).standard_normal((40, 64), np.float32), requires_grad=True) for i in range(3))
with ag.use_kernels("numba"):
    ag.softmax(ag.swiglu(ag.layer_norm(x, w[0], u[0]), u)).sum().backward(np.float32(0.3))
print(hashlib.sha256(b"".join(t.grad.tobytes() for t in (x, w, u))).hexdigest())
"""


def test_a_process_that_finds_no_kernels_gets_the_bits_of_those_that_do(tmp_path):
    first, *later = (python(A_STEP, NUMBA_CACHE_DIR=str(tmp_path)).stdout for _ in range(3))
    assert later == [first, first]


EVERY_KERNEL_ONCE = """
import sys, warnings
sys.path[:0] = ["tests/autograd", "tests/autograd/backends"]
warnings.simplefilter("error")
import numpy as np, autograd as ag
from test_numba import CASES, DTYPES, FAMILIES, KERNELS, REQUIRED, large, run
with ag.use_kernels("numba"):
    for name in KERNELS:
        for case in CASES[name]:
            if case.narrow and 0 not in map(np.size, case.inputs):
                with np.errstate(all="ignore"):
                    for dtype in DTYPES:
                        run(name, case.cast(dtype), case.options | REQUIRED.get(name, {}))
    for name in FAMILIES:
        run(name, *large(name, (1037, 67)))
assert all(ag.kernels_used()[name]["numba"] for name in KERNELS)
"""


def test_every_kernel_stays_within_its_arrays(tmp_path):
    python(EVERY_KERNEL_ONCE, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path))


def test_importing_kernels_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(["numba"])

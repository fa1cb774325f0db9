"""Kernels in float16 and bfloat16: conversions bit for bit, results near float64, half of the memory, no slow paths."""

import numpy as np
import pytest
from primitive_cases import CASES

import autograd as ag
from autograd.debug.saved import saved
from autograd.engine import PRIMITIVES, Tensor, is_floating
from autograd.kernels import load
from autograd.testing import sample_array
from tinyllm.models import Decoder, gpt2, llama

pytest.importorskip("numba")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 in NumPy needs ml_dtypes: the extra bf16")
load(["numba"])
from autograd.backends.numba import blas, halves  # noqa: E402
from autograd.backends.numba.launch import at_most  # noqa: E402

if not blas.available:
    pytest.skip("no BLAS library was found", allow_module_level=True)

FLOAT16, BFLOAT16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
HALVES = [FLOAT16, BFLOAT16]
KERNELS = sorted(name for name, op in PRIMITIVES.items() if "numba" in op.kernels)

# --- Conversions ------------------------------------------------------------------------------------------------------

EVERY_PATTERN = np.arange(2**16, dtype=np.uint16)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_half_is_widened_to_the_bits_that_numpy_makes(dtype):
    every = EVERY_PATTERN.view(dtype)
    with np.errstate(invalid="ignore"):  # NumPy's remark on signalling NaN
        expected = every.astype(np.float32)
    np.testing.assert_array_equal(halves.widened(every).view(np.uint32), expected.view(np.uint32))


def around_every_tie(dtype):
    """The float32 numbers halfway between neighbouring halves, and those just above and below."""
    with np.errstate(invalid="ignore"):
        every = EVERY_PATTERN.view(dtype).astype(np.float64)
    finite = np.sort(every[np.isfinite(every)])
    ties = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    largest = np.float32(finite[-1] + (finite[-1] - finite[-2]) / 2)  # from here on: infinite
    ties = np.concatenate([ties, [largest, -largest]]).astype(np.float32)
    return np.concatenate([ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_float32_is_rounded_to_the_bits_that_numpy_makes(dtype):
    patterns = np.random.default_rng(0).integers(0, 2**32, 2**22, dtype=np.uint32)  # NaN of every kind among them
    edges = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 1e-38, 3.4e38], np.float32)
    for x in (patterns.view(np.float32), around_every_tie(dtype), edges):
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            expected = x.astype(dtype)
        np.testing.assert_array_equal(halves.rounded(x, dtype).view(np.uint16), expected.view(np.uint16))


LAYOUTS = {
    "flat": np.zeros(20_011),
    "none": np.zeros((0, 3)),
    "0-d": np.zeros(()),
    "transposed": np.zeros((5, 7, 3)).transpose(2, 0, 1),
    "heads": np.zeros((2, 9, 4, 8)).transpose(0, 2, 1, 3),
    "strided": np.zeros((9, 10))[::2, ::3],
    "reversed": np.zeros((4, 5))[::-1, ::-1],
    "repeated": np.broadcast_to(np.zeros(5), (3, 5)),
    "thin": np.zeros((6, 1, 4))[:, :, ::2],
}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conversions_of_arrays_in_any_order_in_memory(layout, dtype):
    lies = LAYOUTS[layout]
    x = np.empty_like(lies, dtype=dtype)
    x[...] = np.random.default_rng(0).standard_normal(lies.shape)
    x.flags.writeable = False
    wide = halves.widened(x)
    assert (wide.dtype, wide.shape) == (np.float32, x.shape)
    np.testing.assert_array_equal(wide, x.astype(np.float32))
    again = halves.rounded(wide, dtype)
    assert again.dtype == dtype
    assert again.tobytes() == x.tobytes()
    if layout in ("transposed", "heads"):
        assert [s // 4 for s in wide.strides] == [s // 2 for s in again.strides] == [s // 2 for s in x.strides]


def test_what_is_not_half_stays_itself():
    for x in (np.ones(3, np.float32), np.ones(3, int), None, 2.0):
        assert halves.widened(x) is x
    assert halves.rounded(LAYOUTS["flat"], np.dtype(np.float32)) is LAYOUTS["flat"]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_sums_of_halves_have_the_bits_of_numpys(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**16, (2, 2**20), dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        expected = a + b
    number = ~np.isnan(expected)
    with ag.use_kernels("numba"):
        got = ag.add(a, b).data
    np.testing.assert_array_equal(got.view(np.uint16)[number], expected.view(np.uint16)[number])
    assert np.isnan(got[~number]).all()


# --- Every kernel -----------------------------------------------------------------------------------------------------

# A gradient may be what is left where larger terms cancel: roundings of those are allowed.
CANCELS = {"attention": 0.5}
# One rounding takes eps / 2 of the largest entry; a tenth is for what is computed in float32 before it. Attention saves
# its result rounded, and subtracts from each dp the sum of dy times it: so gradients carry several of those roundings.
EPS = {"attention": 2.0}
REQUIRED = {"dropout": {"seed": 3}, "cast": {"dtype": np.dtype(np.float32)}}  # options that cases leave out


def run(name, inputs, options, dy=None):
    """[result, gradient of each float input]; dy: normal unless given."""
    leaves = [Tensor(x, requires_grad=is_floating(x.dtype)) if isinstance(x, np.ndarray) else x for x in inputs]
    y = PRIMITIVES[name](*leaves, **options)
    dy = np.random.default_rng(0).standard_normal(y.shape) if dy is None else dy
    y.backward(dy.astype(y.dtype))
    return [y.data, *(x.grad for x in leaves if isinstance(x, Tensor) and x.requires_grad)]


def cast(inputs, dtype):
    """Float inputs in that dtype, layout kept; vectors, a norm's weight say, in float32 as models have them."""
    return [
        x.astype(dtype if x.ndim != 1 else np.float32) if isinstance(x, np.ndarray) and is_floating(x.dtype) else x
        for x in inputs
    ]


def compare(name, inputs, options, dtype):
    """The kernel in half precision is as near to float64, from the same inputs and dy, as one rounding may take it.

    Dtypes are those of the reference. Returns whether the kernel ran.
    """
    options, limits = options | REQUIRED.get(name, {}), ml_dtypes.finfo(dtype)
    exact = [x.astype(np.float64) if isinstance(x, np.ndarray) and is_floating(x.dtype) else x for x in inputs]
    dy = np.random.default_rng(0).standard_normal(PRIMITIVES[name](*exact, **options).shape).astype(dtype)
    expected, reference = (run(name, arrays, options, dy) for arrays in (exact, inputs))
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        got = run(name, inputs, options, dy)
    if not ag.kernels_used()[name]["numba"]:
        return False
    floor = CANCELS.get(name, 0) * max(float(np.abs(x).max(initial=0)) for x in expected)
    for i, (a, b, like) in enumerate(zip(got, expected, reference, strict=True)):
        what = f"{name}: {'result' if i == 0 else f'gradient {i - 1}'}"
        assert (a.dtype, a.shape) == (like.dtype, like.shape), what
        error, size = np.abs(a.astype(np.float64) - b).max(initial=0), max(np.abs(b).max(initial=0), floor)
        allowed = EPS.get(name, 0.6) * float(limits.eps) * size + float(limits.smallest_subnormal)
        assert error <= allowed, f"{what} is off by {error:.3g} where {allowed:.3g} is allowed"
    return True


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_in_half_precision_are_near_float64_on_every_case(name, dtype):
    ran = [compare(name, case.cast(dtype), case.options, dtype) for case in CASES[name] if case.narrow]
    least = 1 if name == "add" else len(ran) / 2  # its kernel is for arrays that lie alike, most cases are not
    assert sum(ran) >= least, f"the kernel of {name} declined {len(ran) - sum(ran)} of {len(ran)} cases"


def normal(*shape, layout="contiguous"):
    return sample_array(shape, "float32", layout=layout, seed=sum(shape))


R, C = 1037, 67  # more than one thread takes, in blocks that do not come out even
TARGETS = np.where(np.arange(R) % 11, np.arange(R) % C, -100)
LARGE = {
    "add": ([normal(R, C), normal(R, C, layout="transposed")], {}),
    "attention": ([normal(2, 4, 131, 8), normal(2, 2, 300, 8), normal(2, 2, 300, 8)], {"window": 90}),
    "cast": ([normal(R, C)], {"dtype": np.dtype(np.float32)}),
    "cross_entropy": ([normal(R, C), TARGETS], {"label_smoothing": 0.1}),
    "dropout": ([normal(R, C)], {"rate": 0.3, "seed": 3}),
    "embedding": ([normal(R, C), np.arange(3000).reshape(2, 1500) ** 2 % R], {}),
    "gelu": ([normal(R, C), normal(C)], {"approximate": "tanh"}),
    "layer_norm": ([normal(R, C), normal(C), normal(C)], {}),
    "linear": ([normal(R, C), normal(131, C), normal(131)], {}),
    "linear_cross_entropy": ([normal(R, C) / 4, normal(70, C), TARGETS], {"chunk": 9999}),
    "log_softmax": ([normal(R, C)], {}),
    "logsumexp": ([normal(R, C)], {"keepdims": True}),
    "matmul": ([normal(5, 1, 131, C), normal(3, C, 70)], {}),
    "relu": ([normal(R, C)], {}),
    "rms_norm": ([normal(R, C), normal(C)], {}),
    "rope": ([normal(3, 5, R, 34)], {"positions": np.arange(R) * 7}),
    "silu": ([normal(R, C)], {}),
    "softmax": ([normal(R, C)], {}),
    "squared_relu": ([normal(R, C)], {}),
    "swiglu": ([normal(R, C), normal(R, C)], {}),
}


def large(name, dtype):
    """Inputs in half precision, but vectors that belong to norms and stay in float32, as in a model; and options."""
    inputs, options = LARGE[name]
    keep = name.endswith("norm")
    return [x if x.dtype == int or (keep and x.ndim == 1) else x.astype(dtype) for x in inputs], options


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_in_half_precision_are_near_float64_at_large_and_awkward_sizes(name, dtype):
    inputs, options = large(name, dtype)
    assert compare(name, inputs, options, dtype)


@pytest.mark.parametrize("rows", [1, 4, 5])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_products_of_few_rows(rows, dtype):
    inputs = [x.astype(dtype) for x in (normal(rows, C), normal(301, C), normal(301))]
    assert compare("linear", inputs, {}, dtype)
    assert compare("linear", [*inputs[:2], None], {}, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_row_of_its_own_loss_each(dtype):
    inputs, options = large("linear_cross_entropy", dtype)
    assert compare("linear_cross_entropy", inputs, options | {"reduction": "none"}, dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits_on_one_thread_and_inputs_that_may_be_read_only(name, dtype):
    inputs, options = large(name, dtype)
    before = [x.tobytes() for x in inputs]
    for x in inputs:
        x.flags.writeable = False
    with ag.use_kernels("numba"):
        first = run(name, inputs, options)
        with at_most(1):
            alone = run(name, inputs, options)
    for x in LARGE[name][0]:
        x.flags.writeable = True
    assert [x.tobytes() for x in first] == [x.tobytes() for x in alone]
    assert [x.tobytes() for x in inputs] == before


UNSCALED = {"linear_cross_entropy"}  # saves the gradients of the sum, which the reference keeps in float32 too


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", [name for name in KERNELS if name not in UNSCALED])
def test_nothing_as_large_as_the_inputs_is_saved_in_float32(name, dtype):
    inputs, options = large(name, dtype)
    leaves = [Tensor(x, requires_grad=is_floating(x.dtype)) for x in inputs]
    with ag.use_kernels("numba"):
        y = PRIMITIVES[name](*leaves, **options)
    wide = sum(x.nbytes for _, x in saved(y.node) if x.dtype == np.float32)
    assert wide <= max(x.nbytes for x in inputs) / 4, [(name, x.dtype, x.shape) for name, x in saved(y.node)]


def test_kernels_decline_a_mixture_they_do_not_know():
    x, w = np.ones((3, 4), np.float16), np.ones((5, 4), np.float32)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        ag.linear(x, w)
        ag.add(x, x.astype(BFLOAT16).astype(np.float32))
        ag.gelu(x, np.ones(4))
    assert {name: counts["numba declined"] for name, counts in ag.kernels_used().items()} == dict.fromkeys(
        ("linear", "add", "gelu"), 1
    )


# --- A training step --------------------------------------------------------------------------------------------------

SHAPE = gpt2.config(
    vocab_size=65, hidden_size=64, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=64, dropout=0.1
)
LLAMA = llama.config(
    vocab_size=65, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64,
)  # fmt: skip
IDS = np.arange(8 * 64).reshape(8, 64) ** 2 % 65


def step(config, dtype, *backends):
    """(model, its loss) after forward and backward, loss scaled as training does it."""
    model = Decoder(config, seed=0)
    model.activation_dtype = dtype
    with ag.use_kernels(*backends):
        loss = model.loss(IDS, IDS // 3, dropout_seed=5)
        loss.backward(np.float32(1024))
    return model, loss.item()


@pytest.mark.parametrize("config", [SHAPE, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_step_with_kernels_is_as_near_to_float32_as_one_without(dtype, config):
    models, losses = zip(*[step(config, d, *b) for d, b in ((None, ()), (dtype, ()), (dtype, ("numba",)))], strict=True)
    exact, reference, kernels = (
        np.concatenate([p.grad.ravel() for p in model.parameters().values()]) for model in models
    )
    assert abs(losses[2] - losses[0]) <= float(ml_dtypes.finfo(dtype).eps) * losses[0]
    assert np.linalg.norm(kernels - exact) <= 1.1 * np.linalg.norm(reference - exact)


@pytest.mark.parametrize("config", [SHAPE, LLAMA], ids=["gpt2", "llama"])
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_no_arithmetic_in_half_precision_is_numpys(dtype, config):
    """What runs as array code only moves numbers about, or works on float32: the position's sum, one division."""
    ag.kernels_used(reset=True)
    step(config, dtype, "numba")
    by_reference = {name for name, counts in ag.kernels_used().items() if counts["reference"]}
    assert by_reference <= {"add", "reshape", "transpose"}
    assert ag.kernels_used()["add"]["reference"] <= 1
    assert ag.kernels_used()["sum_of_halves"]["numba"] > 0


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_step_in_half_precision_keeps_about_half_of_the_activations(dtype):
    kept = {}
    for precision in (None, dtype):
        with ag.debug.ledger() as book:
            step(SHAPE, precision, "numba")
        kept[precision] = book.bytes
    weights = sum(p.data.nbytes for p in Decoder(SHAPE).parameters().values() if p.ndim == 2)
    assert kept[dtype] - weights / 2 <= 0.55 * kept[None]  # the weights in half precision are kept beside their masters


def test_weights_cast_for_a_product_get_their_gradients_in_their_own_buffers():
    weight = Tensor(normal(9, C), requires_grad=True)
    weight.buffer = buffer = np.full((9, C), np.nan, np.float32)
    with ag.use_kernels("numba"):
        ag.linear(Tensor(normal(5, C).astype(FLOAT16)), ag.cast(weight, dtype=FLOAT16)).sum().backward()
    assert weight.grad is buffer
    np.testing.assert_allclose(buffer, np.tile(normal(5, C).astype(FLOAT16).sum(0, np.float32), (9, 1)), rtol=1e-3)

"""The loss without the logits: kernel against reference, and what both keep of memory."""

import tracemalloc

import numpy as np
import pytest

import autograd as ag
from autograd.engine import Tensor
from autograd.kernels import load
from autograd.ops.loss import pieces
from autograd.testing import sample_array

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba import blas  # noqa: E402 (loading it sets threads, which use_kernels does otherwise)
from autograd.backends.numba.launch import at_most  # noqa: E402

RTOL = 3e-6  # of the largest entry, as for all kernels


def sample(N, C, V, ignored=0.1, layout="contiguous"):
    """x, weight and targets. Logits have deviation 2, so that probabilities are neither equal nor 0 and 1."""
    x = sample_array((N, C), "float32", layout=layout, seed=0)
    weight = sample_array((V, C), "float32", seed=1) * np.float32(2 / np.sqrt(C))
    rng = np.random.default_rng(2)
    return x, weight, np.where(rng.random(N) < ignored, -100, rng.integers(0, V, N))


def run(x, weight, targets, frozen=(), buffer=False, **options):
    """[loss, dx, dweight]; None for the gradient of what is frozen."""
    leaves = [Tensor(a, requires_grad=name not in frozen) for name, a in (("x", x), ("weight", weight))]
    if buffer:
        leaves[1].buffer = np.full(weight.shape, np.nan, weight.dtype)
    loss = ag.linear_cross_entropy(*leaves, targets, **options)
    if loss.requires_grad:
        loss.backward(np.random.default_rng(3).standard_normal(loss.shape).astype(loss.dtype))
    if buffer:
        assert leaves[1].grad is leaves[1].buffer
    return [loss.data, *(leaf.grad for leaf in leaves)]


def with_kernel(*inputs, **options):
    """As `run`, and the kernel must have run."""
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        results = run(*inputs, **options)
    assert ag.kernels_used()["linear_cross_entropy"] == {"numba": 1}
    return results


def require_near(got, expected):
    for name, a, b in zip(("loss", "dx", "dweight"), got, expected, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.abs(a - b).max() <= RTOL * np.abs(b).max(), name


SIZES = [(1, 1, 1), (1, 7, 40), (3, 20_000, 5), (37, 5, 1001), (131, 64, 67), (300, 33, 257), (1037, 3, 2)]
CHUNKS = [1, 64 * 67, 20_000, 2**23]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_equals_its_reference(size, chunk, reduction):
    x, weight, targets = sample(*size)
    smoothing = 0.1 if size[2] > 1 else 0.0  # with one class the gradient is 0, or with smoothing its rounding
    options = {"reduction": reduction, "chunk": chunk, "label_smoothing": smoothing}
    require_near(with_kernel(x, weight, targets, **options), run(x, weight, targets, **options))


@pytest.mark.parametrize("layout", ["transposed", "strided", "reversed"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_any_layout_and_targets_of_any_shape(layout, reduction):
    x, weight, targets = sample(132, 20, 67, layout=layout)
    options = {"reduction": reduction, "chunk": 64 * 67}
    require_near(with_kernel(x, weight, targets, **options), run(x, weight, targets, **options))
    x, targets, weight = x.reshape(4, 33, 20), targets.reshape(4, 33).astype(np.int16), weight[::-1]
    require_near(with_kernel(x, weight, targets, **options), run(x, weight, targets, **options))


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("frozen", [("x",), ("weight",), ("x", "weight")])
def test_a_frozen_input_changes_nothing_for_the_other(frozen, reduction):
    inputs = sample(131, 20, 67)
    every = with_kernel(*inputs, reduction=reduction, chunk=4288)
    some = with_kernel(*inputs, reduction=reduction, chunk=4288, frozen=frozen)
    assert some[0].tobytes() == every[0].tobytes()
    for name, a, b in zip(("x", "weight"), some[1:], every[1:], strict=True):
        assert a is None if name in frozen else a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kernels", ["reference", "numba"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_gradient_of_the_weight_lands_in_its_buffer(reduction, kernels):
    inputs = sample(131, 20, 67)
    with ag.use_kernels(kernels):
        without = run(*inputs, reduction=reduction, chunk=4288)
        within = run(*inputs, reduction=reduction, chunk=4288, buffer=True)
    assert within[2].tobytes() == without[2].tobytes()


@pytest.mark.parametrize("kernels", ["reference", "numba"])
def test_what_is_frozen_is_not_computed(kernels, monkeypatch):
    """A product with V × C results costs as much as the loss; each is counted where it is made."""
    made = []
    product = blas.product
    monkeypatch.setattr(blas, "product", lambda a, b, **options: made.append(a.shape) or product(a, b, **options))
    monkeypatch.setattr(ag.ops.loss, "loss_and_dlogits", counted(ag.ops.loss.loss_and_dlogits, made))
    x, weight, targets = sample(64, 20, 67)
    with ag.use_kernels(kernels), ag.no_grad():
        run(x, weight, targets)
    assert len(made) == 1
    with ag.use_kernels(kernels):
        run(x, weight, targets, frozen=("x", "weight"))
    assert len(made) == 2


def counted(function, made):
    def count(rows, weight, target, dL, options):
        assert dL is None
        made.append(rows.shape)
        return function(rows, weight, target, dL, options)

    return count


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_same_bits_from_run_to_run_and_on_one_thread(reduction):
    inputs = sample(300, 65, 257)
    first = with_kernel(*inputs, reduction=reduction, chunk=64 * 257)
    with at_most(1):
        alone = with_kernel(*inputs, reduction=reduction, chunk=64 * 257)
    again = with_kernel(*inputs, reduction=reduction, chunk=64 * 257)
    for a, b, c in zip(first, alone, again, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_without_a_library_the_products_are_numpys(reduction, monkeypatch):
    inputs, options = sample(131, 20, 67), {"reduction": reduction, "chunk": 4288}
    expected = run(*inputs, **options)
    monkeypatch.setattr(blas, "available", False)
    require_near(with_kernel(*inputs, **options), expected)


def test_what_the_kernel_does_not_do_is_done_by_the_reference():
    x, weight, targets = sample(5, 3, 4)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        run(x.astype(np.float64), weight.astype(np.float64), targets)
        run(x.astype(np.float16), weight, targets)
        run(x[:0], weight, targets[:0])
    assert ag.kernels_used()["linear_cross_entropy"] == {"numba declined": 3, "reference": 3}


def test_inputs_may_be_read_only_and_are_left_alone():
    x, weight, targets = sample(131, 20, 67)
    before = [a.copy() for a in (x, weight, targets)]
    for a in (x, weight, targets):
        a.flags.writeable = False
    for reduction in ("mean", "none"):
        leaf = Tensor(x, requires_grad=True)
        with ag.use_kernels("numba"):
            loss = ag.linear_cross_entropy(leaf, weight, targets, reduction=reduction, chunk=4288)
            dloss = np.ones(loss.shape, np.float32)
            dloss.flags.writeable = False
            loss.backward(dloss)
    assert all(a.tobytes() == b.tobytes() for a, b in zip((x, weight, targets), before, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nothing_of_an_ignored_row_reaches_loss_or_gradients(reduction):
    x, weight, _ = sample(4, 9, 11)
    x[1] = np.nan
    loss, dx, _ = with_kernel(x, weight, np.array([0, -100, 3, 8]), reduction=reduction, chunk=11, frozen=("weight",))
    assert np.isfinite(loss).all()
    assert np.isfinite(dx).all()
    assert not dx[1].any()
    assert not any(part.any() for part in with_kernel(*sample(4, 9, 11, ignored=1.0), reduction=reduction, chunk=11))


def test_one_nan_makes_the_loss_nan():
    x, weight, targets = sample(4, 9, 11, ignored=0)
    x[1, 2] = np.nan
    assert np.isnan(with_kernel(x, weight, targets)[0])


@pytest.mark.parametrize("kernels", ["reference", "numba"])
def test_early_gradients_are_those_of_one_and_wait_for_dloss(kernels):
    """A pullback is linear: twice the dloss, twice the gradients, to the last bit since 2 is a power of two."""
    x, weight, targets = sample(131, 20, 67)
    found = []
    for factor in (1.0, 2.0):
        leaves = [Tensor(a, requires_grad=True) for a in (x, weight)]
        with ag.use_kernels(kernels):
            ag.linear_cross_entropy(*leaves, targets, chunk=4288).backward(np.float32(factor))
        found.append([leaf.grad * np.float32(2 / factor) for leaf in leaves])
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


def test_pieces_cover_every_row_once_and_are_blocks_of_64_where_they_can_be():
    assert pieces(200, 10, 1000) == [slice(0, 64), slice(64, 128), slice(128, 192), slice(192, 256)]
    assert pieces(5, 10, 25) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert pieces(3, 10, 1) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert pieces(0, 10, 1) == []


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kernels", ["reference", "numba"])
def test_the_logits_are_never_there_at_once(kernels, reduction):
    """4096 rows of 20,000 logits are 328 MB. A piece of them is 4 MB, x 1 MB, the weight 5 MB, and so are gradients."""
    N, V, C, chunk = 4096, 20_000, 64, 2**20
    inputs = sample(N, C, V)
    with ag.use_kernels(kernels):
        run(*sample(4, 3, 5), reduction=reduction)  # compiled, before anything is measured
        tracemalloc.start()
        try:
            run(*inputs, reduction=reduction, chunk=chunk)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < N * V * 4 / 10

"""What ops give: at zero and at extremes, against other ways to compute the same, and by their contracts."""

import math
import warnings

import numpy as np
import pytest
from primitive_cases import CASES, heads, normal

import autograd as ag
from autograd import arrays
from autograd.engine import Tensor
from autograd.ops.activation import logistic


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def gradients(f, *inputs):
    leaves = [Tensor(np.asarray(x), requires_grad=True) for x in inputs]
    y = f(*leaves)
    y.backward(np.ones(y.shape, y.dtype))
    return [leaf.grad.tolist() for leaf in leaves]


# Where NumPy has a case of its own (kinks and ties: `test_registry_kinks.py`)


@pytest.mark.parametrize(
    ("f", "inputs", "expected"),
    [
        (lambda x: x**0, [[0.0, 2.0]], [[0, 0]]),
        (lambda x: x**1, [[0.0, 2.0]], [[1, 1]]),
        (lambda x: x**2, [[0.0, 2.0]], [[0, 4]]),
        (ag.power, [[0.0, 2.0], [3.0, 1.0]], [[0, 1], [0, 2 * math.log(2)]]),
        (lambda x: ag.sum(x, axis=0), [2.0], [1]),
        (lambda x: ag.max(x, axis=-1), [2.0], [1]),
    ],
)
def test_powers_of_zero_and_reductions_of_an_array_without_axes(f, inputs, expected):
    assert gradients(f, *inputs) == expected


# Far from zero: finite, right, and without a warning


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("f", "inputs", "value", "gradient"),
    [
        (ag.softmax, [1e4, 0, -1e4], [1, 0, 0], [0, 0, 0]),
        (ag.log_softmax, [1e4, 0, -1e4], [0, -1e4, -2e4], [-2, 1, 1]),
        (ag.logsumexp, [1e4, 0, -1e4], 1e4, [1, 0, 0]),
        (ag.logsumexp, [-1e4, -1e4], -1e4 + math.log(2), [0.5, 0.5]),
        (ag.sigmoid, [-1e3, 0, 1e3], [0, 0.5, 1], [0, 0.25, 0]),
        (ag.silu, [-1e3, 0, 1e3], [0, 0, 1e3], [0, 0.5, 1]),
        (ag.tanh, [-1e3, 0, 1e3], [-1, 0, 1], [0, 1, 0]),
        (ag.gelu, [-30, 0, 30], [0, 0, 30], [0, 0.5, 1]),
        (lambda x: ag.gelu(x, approximate="tanh"), [-30, 0, 30], [0, 0, 30], [0, 0.5, 1]),
        (lambda x: ag.layer_norm(x, np.ones(2, x.dtype), eps=0), [1e4, -1e4], [1, -1], [0, 0]),
        (lambda x: ag.rms_norm(x, np.ones(2, x.dtype)), [0, 0], [0, 0], [math.sqrt(1e5)] * 2),
        (lambda x: ag.layer_norm(x, np.ones(3, x.dtype)), [5, 5, 5], [0, 0, 0], [0, 0, 0]),
        (lambda x: ag.cross_entropy(x.reshape(1, 3), np.array([0])), [1e4, 0, -1e4], 0, [0, 0, 0]),
        (lambda x: ag.cross_entropy(x.reshape(1, 3), np.array([1])), [1e4, 0, -1e4], 1e4, [1, -1, 0]),
    ],
)
def test_extremes_are_finite_and_warn_of_nothing(f, inputs, value, gradient, dtype):
    x = Tensor(np.array(inputs, dtype), requires_grad=True)
    y = f(x)
    y.backward(np.ones(y.shape))
    rtol = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(y.data, value, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(x.grad, gradient, rtol=rtol, atol=rtol)


def test_norms_of_large_halves_do_not_overflow():
    x = np.full((1, 4), 6e4, np.float16)
    assert ag.rms_norm(x, np.ones(4, np.float16)).data.tolist() == [[1, 1, 1, 1]]
    assert ag.mean(Tensor(x)).item() == np.float16(6e4)
    assert np.isfinite(ag.layer_norm(x * [1, -1, 1, -1], np.ones(4, np.float16)).data).all()


# Losses


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_all_targets_ignored_is_loss_zero_and_gradient_zero(reduction, smoothing):
    x = Tensor(normal(3, 4), requires_grad=True)
    loss = ag.cross_entropy(x, np.full(3, -100), reduction=reduction, label_smoothing=smoothing)
    loss.backward(np.ones(loss.shape))
    assert not loss.data.any()
    assert not x.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_its_equation_from_primitives(reduction, smoothing):
    logits, targets = normal(6, 5), np.array([0, 4, -1, 2, -1, 4])
    kept = targets != -1
    q = (1 - smoothing) * np.eye(5)[targets] + smoothing / 5

    def by_hand(x):
        losses = -(ag.log_softmax(x) * q).sum(axis=-1) * kept
        return losses if reduction == "none" else losses.sum() / (kept.sum() if reduction == "mean" else 1)

    x, same = Tensor(logits, requires_grad=True), Tensor(logits, requires_grad=True)
    loss = ag.cross_entropy(x, targets, ignore_index=-1, label_smoothing=smoothing, reduction=reduction)
    expected = by_hand(same)
    dy = np.linspace(1, 2, loss.size).reshape(loss.shape)
    loss.backward(dy)
    expected.backward(dy)
    np.testing.assert_allclose(loss.data, expected.data, rtol=1e-13)
    np.testing.assert_allclose(x.grad, same.grad, rtol=1e-12, atol=1e-15)


def test_the_loss_of_half_logits_is_float32():
    assert ag.cross_entropy(normal(2, 3).astype(np.float16), np.array([0, 1])).dtype == np.float32


# Attention


def three_lines(q, k, v, *, bias=None, **masks):
    """The version at the top of ops/attention.py, heads of one group repeated."""
    (_, H, T, D), S, G = q.shape, k.shape[2], k.shape[1]
    heads = [h // (H // G) for h in range(H)]
    k, v = (ag.concatenate(*(x[:, h : h + 1] for h in heads), axis=1) for x in (k, v))
    mask = ag.attention_mask(T, S, **masks)
    mask = (0 if mask is None else mask) + (0 if bias is None else bias)
    visible = np.broadcast_to(mask > -np.inf, (*q.shape[:3], S)).any(-1, keepdims=True)
    scores = ag.matmul(q, ag.transpose(k, axes=(0, 1, 3, 2))) / math.sqrt(D) + np.where(visible, mask, 0)
    p = ag.softmax(scores) * visible  # a query that sees nothing gets nothing
    return ag.matmul(p, v)


@pytest.mark.parametrize("case", CASES["attention"], ids=lambda case: case.label)
def test_attention_equals_its_three_lines_of_primitives(case):
    if case.inputs[0].size == 0:
        return
    ours, theirs = ([Tensor(x, requires_grad=True) for x in case.inputs] for _ in range(2))
    y = ag.attention(*ours, **case.options)
    expected = three_lines(*theirs, **case.options)
    dy = np.random.default_rng(0).standard_normal(y.shape)
    y.backward(dy)
    expected.backward(dy)
    np.testing.assert_allclose(y.data, expected.data, rtol=1e-12, atol=1e-14)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad, rtol=1e-11, atol=1e-14)


def visible(*shape, **options):
    """Which (query, key) pairs the mask allows, pair by pair."""
    mask = ag.attention_mask(*shape, **options)
    return np.ones(shape, bool) if mask is None else mask == 0


def test_masks_allow_exactly_the_stated_pairs():
    T, S = 3, 5
    segments = np.array([[0, 0, 1, 1, -1]])
    for causal in (True, False):
        for window in (None, 1, 2, 10):
            for ids in (None, segments):
                got = visible(T, S, causal=causal, window=window, segments=ids)
                got = got[0, 0] if ids is not None else got
                for t in range(T):
                    for s in range(S):
                        at = S - T + t
                        expected = (not causal or s <= at) and (window is None or s > at - window)
                        if ids is not None:
                            expected = expected and ids[0, at] == ids[0, s] != -1
                        assert got[t, s] == expected, (t, s, causal, window)


def test_a_mask_that_hides_nothing_is_none():
    assert ag.attention_mask(1, 7) is None
    assert ag.attention_mask(3, 3, causal=False) is None


def test_a_query_that_sees_nothing_gets_zero_and_gives_no_gradient():
    q, k, v = (Tensor(x, requires_grad=True) for x in heads(1, 1, 1, 3, 3, 2))
    y = ag.attention(q, k, v, segments=np.array([[0, -1, 0]]))
    y.backward(np.ones(y.shape))
    assert y.data[0, 0, 1].tolist() == [0, 0]
    for x in (q, k, v):
        assert x.grad[0, 0, 1].tolist() == [0, 0]


def test_attention_to_the_last_query_equals_the_last_row_of_the_whole():
    q, k, v = heads(2, 4, 2, 6, 6, 3)
    whole = ag.attention(q, k, v).data
    np.testing.assert_allclose(ag.attention(q[:, :, -1:], k, v).data, whole[:, :, -1:], rtol=1e-13)


def test_keys_of_huge_scores_are_finite():
    q, k, v = heads(1, 2, 2, 4, 4, 2)
    leaves = [Tensor(x, requires_grad=True) for x in (q * 1e4, k * 1e4, v)]
    y = ag.attention(*leaves)
    y.backward(np.ones(y.shape))
    assert all(np.isfinite(x).all() for x in (y.data, *(leaf.grad for leaf in leaves)))


# Arrays


@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 4e-16), (np.float32, 5e-7), (np.float16, 1e-3)])
def test_erf_against_the_c_library(dtype, error):
    x = np.concatenate([np.linspace(-7, 7, 20_001), [0.0, 1e-300, -1e-30, 0.84375, 1.25, 1 / 0.35, 6, 30, -30]])
    x = x.astype(dtype)
    y = arrays.erf(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.astype(np.float64), [math.erf(value) for value in x], rtol=0, atol=error)


def test_erf_of_limits():
    for dtype in (np.float32, np.float64):
        got = arrays.erf(np.array([np.inf, -np.inf, np.nan, -0.0], dtype))
        np.testing.assert_allclose(got, [1, -1, np.nan, 0], rtol=0, atol=5e-7)


def test_erf_keeps_relative_accuracy_near_zero():
    x = np.array([1e-300, -1e-12, 1e-5])
    np.testing.assert_allclose(arrays.erf(x), [math.erf(value) for value in x], rtol=4e-16)


def test_half_matmul_accumulates_in_float32_and_rounds_once():
    a, b = np.full((1, 4096), 1, np.float16), np.full((4096, 1), 1, np.float16)
    assert arrays.matmul(a, b).tolist() == [[4096]]  # in float16 the sum stops at 2048
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((9, 300)).astype(np.float16), rng.standard_normal((300, 7)).astype(np.float16)
    y = arrays.matmul(a, b)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16))
    out = np.empty_like(y)
    assert arrays.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, y)


def test_matmul_writes_into_out():
    a, b, out = normal(3, 4), normal(4, 2), np.empty((3, 2))
    assert arrays.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, a @ b)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
@pytest.mark.parametrize("columns", [(), (3,), (2, 2)])
def test_scatter_add_is_np_add_at(n, columns):
    rng = np.random.default_rng(n)
    rows, values = rng.integers(0, 7, n), rng.standard_normal((n, *columns))
    ours = rng.standard_normal((7, *columns))
    theirs = ours.copy()
    arrays.scatter_add(ours, rows, values)
    np.add.at(theirs, rows, values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


def test_logistic_is_symmetric():
    x = normal(100) * 10
    np.testing.assert_allclose(logistic(x) + logistic(-x), 1, rtol=1e-15)


# Rotary embedding


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rope_is_multiplication_by_a_complex_number(layout):
    x, positions = normal(2, 3, 4, 6), np.array([0, 1, 5, 1000])
    pairs = np.stack([x[..., :3], x[..., 3:]], -1) if layout == "half" else x.reshape(2, 3, 4, 3, 2)
    angle = positions[:, None] * 10000.0 ** (-np.arange(3) / 3)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angle)
    y = ag.rope(x, positions=positions, layout=layout).data
    got = y[..., :3] + 1j * y[..., 3:] if layout == "half" else y[..., ::2] + 1j * y[..., 1::2]
    np.testing.assert_allclose(got, turned, rtol=1e-13)


def test_rope_positions_for_each_row_of_a_batch():
    x = normal(2, 3, 4, 6)
    positions = np.array([[0, 1, 2, 3], [9, 7, 5, 3]])
    y = ag.rope(x, positions=positions).data
    for b in range(2):
        np.testing.assert_array_equal(y[b], ag.rope(x[b : b + 1], positions=positions[b]).data[0])
    np.testing.assert_array_equal(ag.rope(x).data, ag.rope(x, positions=np.arange(4)).data)


def test_rope_in_float32_is_exact_at_far_positions():
    x = normal(1, 1, 1, 4)
    far = np.array([1_000_003])
    exact = ag.rope(x, positions=far).data
    np.testing.assert_allclose(ag.rope(x.astype(np.float32), positions=far).data, exact, rtol=0, atol=1e-6)


# Dropout


def test_dropout_meets_its_rate_and_keeps_the_expectation():
    x = np.ones(200_000)
    y = ag.dropout(x, rate=0.3, seed=1).data
    assert abs((y == 0).mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / x.size)
    assert set(np.unique(y)) == {0, 1 / 0.7}


def test_dropout_is_a_function_of_seed_and_position():
    x = np.ones((50, 40))
    a = ag.dropout(x, rate=0.5, seed=1).data
    np.testing.assert_array_equal(a, ag.dropout(x, rate=0.5, seed=1).data)
    np.testing.assert_array_equal(a, ag.dropout(x, rate=0.5, seed=np.int64(1)).data)
    np.testing.assert_array_equal(a, ag.dropout(x.astype(np.float32), rate=0.5, seed=1).data)
    for other in (0, 2, -1, 2**40 + 1):  # neighbours agree on half the elements, as strangers do
        agree = (a == ag.dropout(x, rate=0.5, seed=other).data).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / math.sqrt(x.size)


def test_dropout_with_a_seed_for_each_sample_does_not_see_how_the_batch_was_cut():
    x, seeds = np.ones((6, 5, 4)), np.array([11, 12, 13, 14, 15, 16])
    whole = ag.dropout(x, rate=0.4, seed=seeds).data
    parts = [ag.dropout(x[i : i + 2], rate=0.4, seed=seeds[i : i + 2]).data for i in (0, 2, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(whole[3], ag.dropout(x[3], rate=0.4, seed=14).data)
    leaf = Tensor(x, requires_grad=True)
    ag.dropout(leaf, rate=0.4, seed=seeds).backward(np.ones(x.shape))
    np.testing.assert_array_equal(leaf.grad, whole)


# Tensors that need no derivative of their own


@pytest.mark.parametrize("sections", [2, [1, 3], [4]])
def test_split_cuts_and_its_gradient_joins(sections):
    x = Tensor(normal(3, 4), requires_grad=True)
    parts = ag.split(x, sections)
    np.testing.assert_array_equal(np.concatenate([p.data for p in parts], -1), x.data)
    total = (parts[0] * 2).sum()
    for part in parts[1:]:
        total = total + (part * 3).sum()
    total.backward()
    width = parts[0].shape[-1]
    np.testing.assert_array_equal(x.grad, np.where(np.arange(4) < width, 2, 3) * np.ones((3, 1)))


def test_cast_rounds_forward_and_returns_the_gradient_in_the_old_dtype():
    x = Tensor(normal(3).astype(np.float64), requires_grad=True)
    y = x.astype(np.float16)
    assert y.dtype == np.float16
    y.backward(np.ones(3))
    assert x.grad.dtype == np.float64

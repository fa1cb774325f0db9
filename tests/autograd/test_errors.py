"""Every error message of the engine and the ops, triggered once: the type, what it says, and where it says it was."""

import re

import numpy as np
import pytest
import strict_device

import autograd as ag
from autograd import arrays
from autograd.engine import Tensor

ONES = np.ones((2, 3))
IDS = np.array([0, 1])


def leaf(*shape):
    return Tensor(np.ones(shape or (2, 3)), requires_grad=True)


def toy(vjp):
    """An op y = 2x with the given pullback."""

    @ag.primitive
    def double(x, other=None):
        y = 2 * x
        return y, vjp

    return double


def heads(*shapes):
    return [np.ones(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        # Tensors
        (
            lambda: Tensor(IDS, requires_grad=True),
            TypeError,
            "only floating point tensors have gradients, not int64[2]",
        ),
        (lambda: Tensor(Tensor(ONES)), TypeError, "use .detach()"),
        (
            lambda: leaf()[IDS],
            TypeError,
            "a Tensor is indexed by slices and integers; for ndarray use gather or embedding",
        ),
        (lambda: leaf()[[0, 1]], TypeError, "for list use gather or embedding"),
        (lambda: leaf()[:, Tensor(IDS)], TypeError, "for Tensor use gather or embedding"),
        (lambda: leaf()[Tensor(IDS)], TypeError, "getitem: option index= is not differentiated; pass an array"),
        # Calls
        (lambda: ag.softmax(leaf(), axis=leaf()), TypeError, "softmax: option axis= is not differentiated"),
        (lambda: ag.attention(*[leaf(1, 1, 2, 2)] * 3, bias=leaf()), TypeError, "option bias= is not differentiated"),
        (lambda: ag.linear(leaf(), bias=leaf(3)), TypeError, "linear: argument weight is missing"),
        (lambda: ag.exp(), TypeError, "exp: argument x is missing"),
        (lambda: ag.exp(ONES, ONES), TypeError, "takes 1 positional argument but 2 were given"),
        (lambda: ag.softmax(ONES, axes=0), TypeError, "unexpected keyword argument 'axes'"),
        # Backward
        (lambda: Tensor(ONES).backward(), ValueError, "depends on nothing that requires a gradient"),
        (lambda: leaf().backward(), ValueError, "backward of float64[2, 3] needs a seed of that shape"),
        (lambda: (leaf() * 2).backward(), ValueError, "backward of float64[2, 3] needs a seed of that shape"),
        (lambda: (leaf() * 2).backward(np.ones(3)), ValueError, "got a seed of shape [3]; they must be equal"),
        # Pullbacks
        (lambda: toy(lambda dy: (dy,))(leaf()).sum().backward(), TypeError, "double must return a tuple of 2, "),
        (
            lambda: toy(lambda dy: dy)(leaf()).sum().backward(),
            TypeError,
            "argument (None where there is no gradient), not flo",
        ),
        (
            lambda: toy((lambda dy: dy,))(leaf()),
            TypeError,
            "the vjp of double must be a tuple of 2, one for each argument",
        ),
        (
            lambda: toy(lambda dy: (dy[:1], None))(leaf()).sum().backward(),
            TypeError,
            "the vjp of double returned float64[1, 3] as the gradient of argument 0 (x), which is float64[2, 3]",
        ),
        (
            lambda: toy(lambda dy: (dy.astype("f4"), None))(leaf()).sum().backward(),
            TypeError,
            "returned float32[2, 3] as the gradient of argument 0 (x), which is float64[2, 3]",
        ),
        (lambda: toy(lambda dy: (None, None))(leaf()).sum().backward(), TypeError, "returned None as the gradient of"),
        # Ops
        (lambda: ag.matmul(ONES, np.ones(3)), ValueError, "matmul takes matrices (..., M, K) and (..., K, N)"),
        (lambda: ag.matmul(ONES, ONES), ValueError, "mismatch in its core dimension"),
        (lambda: ag.linear(ONES, np.ones((4, 2))), ValueError, "mismatch in its core dimension"),
        (lambda: ag.gelu(ONES, ONES), ValueError, "gelu takes x (..., F) and bias (F); got [2, 3] and [2, 3]"),
        (lambda: ag.gelu(ONES, approximate="erf"), ValueError, 'approximate is "none" or "tanh", not \'erf\''),
        (lambda: ag.embedding(ONES, np.array([0, 2])), ValueError, "ids must be in 0 … 1, but range from 0 to 2"),
        (lambda: ag.embedding(ONES, np.array([-1])), ValueError, "ids must be in 0 … 1, but range from -1 to -1"),
        (lambda: ag.embedding(ONES, np.array([0.0])), TypeError, "embedding: ids must be integers, not float64"),
        (lambda: ag.embedding(ONES, [0, 1]), TypeError, "embedding: ids must be an array of integers, not list"),
        (lambda: ag.index_add(ONES, 1, ONES[:1]), TypeError, "index_add: ids must be an array of integers, not int"),
        (lambda: ag.cumsum(leaf(), axis=None), ValueError, "cumsum sums along one axis of an array; for all elements"),
        (lambda: ag.cumsum(Tensor(np.ones(()))), ValueError, "for all elements in a row, reshape(-1) it first"),
        (lambda: ag.gather(ONES, np.array([[3], [0]])), ValueError, "gather: ids must be in 0 … 2"),
        (lambda: ag.index_add(ONES, np.array([2]), ONES[:1]), ValueError, "index_add: ids must be in 0 … 1"),
        (lambda: ag.index_add(ONES, IDS[:1], ONES), ValueError, "index_add: values must be [1, 3], not [2, 3]"),
        (lambda: ag.dropout(ONES, rate=1.0, seed=0), ValueError, "dropout: rate must be in [0, 1), not 1.0"),
        (lambda: ag.dropout(ONES, rate=-0.1, seed=0), ValueError, "dropout: rate must be in [0, 1), not -0.1"),
        (lambda: ag.rope(np.ones((2, 3))), ValueError, "the head width must be even, not 3"),
        (
            lambda: ag.rope(np.ones((2, 4)), layout="meta"),
            ValueError,
            'layout is "half" or "interleaved", not \'meta\'',
        ),
        (lambda: ag.split(leaf(), [1, 1]), ValueError, "parts [1, 1] add up to 2, but axis -1 has length 3"),
        (lambda: ag.split(leaf(), 2), ValueError, "parts [1, 1] add up to 2, but axis -1 has length 3"),
        (lambda: ag.cross_entropy(ONES, IDS, reduction="avg"), ValueError, 'is "mean", "sum" or "none", not \'avg\''),
        (
            lambda: ag.cross_entropy(ONES, IDS[:1]),
            ValueError,
            "takes logits (..., V) and targets (...); got [2, 3] and [1]",
        ),
        (
            lambda: ag.linear_cross_entropy(np.ones((2, 3, 4)), np.ones((5, 4)), np.zeros((3, 2), int)),
            ValueError,
            "takes logits (..., V) and targets (...); got [2, 3, 5] and [3, 2]",
        ),
        (lambda: ag.linear_cross_entropy(ONES, np.ones((4, 2)), IDS), ValueError, "mismatch in its core dimension"),
        (lambda: ag.cross_entropy(ONES, IDS * 1.0), TypeError, "targets must be integers, not float64"),
        (lambda: ag.cross_entropy(ONES, IDS + 2), ValueError, "target 3 is neither in 0 … 2 nor ignore_index (-100)"),
        (lambda: ag.cross_entropy(ONES, IDS - 2), ValueError, "target -2 is neither in 0 … 2 nor ignore_index (-100)"),
        (lambda: ag.attention(*heads((2, 3), (2, 3), (2, 3))), ValueError, "attention takes q (B, H, T, D) and k, v"),
        (
            lambda: ag.attention(*heads((1, 3, 2, 2), *[(1, 2, 2, 2)] * 2)),
            ValueError,
            "3 query heads cannot share 2 key",
        ),
        (
            lambda: ag.attention(*heads((1, 1, 3, 2), *[(1, 1, 2, 2)] * 2)),
            ValueError,
            "3 queries stand at the end of only 2",
        ),
        (lambda: ag.cross_entropy(ONES, [0, 1]), TypeError, "targets must be an array of integers, not list"),
        (
            lambda: ag.attention(*heads(*[(1, 1, 3, 2)] * 3), window=0),
            ValueError,
            "a window counts keys up to the query's own, so it is at least 1, not 0",
        ),
        (
            lambda: ag.attention(*heads(*[(1, 1, 3, 2)] * 3), segments=np.zeros((1, 2), int)),
            ValueError,
            "segments must be an array (B, S) = [1, 3], not int64[1, 2]",
        ),
        (
            lambda: ag.attention(*heads(*[(1, 1, 3, 2)] * 3), segments=[[0, 0, 0]]),
            ValueError,
            "segments must be an array (B, S) = [1, 3], not list",
        ),
        (lambda: arrays.to_device(ONES, "gpu"), ValueError, 'device is "cpu" or "cuda", not \'gpu\''),
    ],
)
def test_message(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_cuda_without_cupy_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(ValueError, match=r'needs CuPy: pip install "tinyllm\[cuda12\]"'):
        arrays.to_device(ONES, "cuda")
    assert arrays.to_device(ONES, "cpu") is ONES


def notes(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value.__notes__


def test_an_error_in_forward_says_op_shapes_and_layer():
    def call():
        with ag.scope("blocks.3"), ag.scope("attention"), ag.scope("query"):
            ag.matmul(leaf(2, 5), np.ones((3, 4), np.float32))

    assert notes(call) == ["in forward of matmul(float64[2, 5], float32[3, 4]), layer blocks.3.attention.query"]
    assert notes(lambda: ag.linear(leaf(2, 5), leaf(3, 4))) == [
        "in forward of linear(float64[2, 5], float64[3, 4], None)"
    ]
    assert notes(lambda: ag.add(leaf(2), "text")) == ["in forward of add(float64[2], str)"]


def test_an_error_in_backward_says_op_result_and_the_layer_of_the_forward():
    def vjp(dy):
        raise ZeroDivisionError("own words")

    with ag.scope("blocks.0"):
        y = toy(vjp)(leaf())
    assert notes(y.sum().backward) == ["in backward of double -> float64[2, 3], layer blocks.0"]


def test_host_and_device_arrays_in_one_call_are_told_apart():
    on_device = strict_device.asarray(np.ones((2, 5)))
    for call in (
        lambda: ag.linear(leaf(2, 5), Tensor(on_device)),
        lambda: ag.linear(Tensor(on_device), leaf(2, 5)),
    ):
        _, second = notes(call)
        assert second.startswith("host and device arrays do not mix: x of ")
        assert "weight of " in second
        assert "strict_device" in second
        assert "numpy" in second
        assert second.endswith("; move them together with autograd.arrays.to_device")
    segments = np.zeros((1, 2), int)
    q = strict_device.asarray(np.ones((1, 1, 2, 2)))
    assert "v of strict_device, segments of numpy" in notes(lambda: ag.attention(q, q, q, segments=segments))[1]


def test_an_error_in_forward_leaves_the_engine_usable():
    with pytest.raises(ValueError, match="matmul"), ag.scope("broken"):
        ag.matmul(leaf(2, 5), leaf(3, 4))
    x = leaf(1)
    ag.exp(x).backward()
    assert ag.context.context.path == ()
    np.testing.assert_allclose(x.grad, [np.e])


def test_an_error_in_recompute_tells_both_places():
    def block(x):
        with ag.scope("inner"):
            return toy(lambda dy: dy)(x)

    assert notes(ag.recompute(block, leaf()).sum().backward) == [
        "in backward of double -> float64[2, 3], layer inner",
        "in backward of recompute(block) -> float64[2, 3]",
    ]

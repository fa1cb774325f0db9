"""Every primitive of ours as PyTorch computes it: a function of torch tensors and of our options.

Where PyTorch has an operation of its own, that one stands here, however it breaks ties or masks; where it has none, the
formula is written out. A primitive without an entry in TORCH fails `test_torch_ops.py`.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def to_torch(x, dtype=None):
    """An array as a tensor with memory of its own, since PyTorch has no negative strides; floats in `dtype`."""
    if not isinstance(x, np.ndarray):
        return x
    tensor = torch.tensor(np.ascontiguousarray(x).reshape(x.shape))
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def tensors(a, b):
    """A number beside a tensor as a tensor of the same dtype, for functions that take tensors only."""
    dtype = a.dtype if isinstance(a, torch.Tensor) else b.dtype
    return torch.as_tensor(a, dtype=dtype), torch.as_tensor(b, dtype=dtype)


def attention(q, k, v, *, causal=True, window=None, segments=None, bias=None):
    T, S = q.shape[2], k.shape[2]
    query, key = torch.arange(S - T, S)[:, None], torch.arange(S)[None, :]
    visible = torch.ones(1, 1, T, S, dtype=torch.bool)
    if causal:  # PyTorch's own is_causal puts query 0 at key 0 also where there are more keys than queries
        visible = visible & (key <= query)
    if window is not None:
        visible = visible & (query - key < window)
    if segments is not None:
        ids = to_torch(segments)
        visible = visible & (ids[:, None, S - T :, None] == ids[:, None, None, :]) & (ids >= 0)[:, None, None, :]
    mask = torch.zeros(visible.shape, dtype=q.dtype).masked_fill(~visible, -torch.inf)
    if bias is not None:
        mask = mask + to_torch(bias, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


def cross_entropy(logits, targets, *, reduction="mean", **options):
    rows, flat = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long()
    loss = F.cross_entropy(rows, flat, reduction=reduction, **options)
    return loss.reshape(targets.shape) if reduction == "none" else loss


def dropout(x, *, kept, rate):
    """What torch.nn.functional.dropout computes, with our choice of elements: the two have different randomness."""
    return x * (torch.tensor(kept).to(x.dtype) / (1 - rate))


def of_one_rank(x, *, ranks, cuts=None):
    """A collective of one process."""
    return x.clone()


def getitem(x, *, index):
    if isinstance(index, slice) and (index.step or 1) < 0:  # which PyTorch does not have
        return x[torch.tensor(np.arange(len(x))[index].copy())]
    return x[index]


def layer_norm(x, weight, bias=None, *, eps=1e-5):
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def linear_cross_entropy(x, weight, targets, *, chunk=None, **options):
    return cross_entropy(F.linear(x, weight), targets, **options)


def maximum_over(x, *, axis=None, keepdims=False):
    return torch.amax(x, () if axis is None else axis, keepdims)


def pad(x, *, widths, value=0.0):
    return F.pad(x, [n for before_and_after in reversed(widths) for n in before_and_after], value=value)


def rms_norm(x, weight, *, eps=1e-5):
    return F.rms_norm(x, weight.shape, weight, eps)


def rope(x, *, positions=None, theta=10000.0, layout="half"):
    """Pairs of features as complex numbers, multiplied by e^(i angle)."""
    D = x.shape[-1]
    positions = torch.arange(x.shape[-2]) if positions is None else torch.as_tensor(positions)
    angle = positions[..., None].double() * theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    if angle.ndim == 3:
        angle = angle[:, None]
    turn = torch.polar(torch.ones_like(angle), angle)
    if layout == "half":
        turned = torch.complex(*x.chunk(2, -1)) * turn.to(x.dtype.to_complex())
        return torch.cat([turned.real, turned.imag], -1)
    pairs = torch.complex(x[..., 0::2], x[..., 1::2]) * turn.to(x.dtype.to_complex())
    return torch.view_as_real(pairs).flatten(-2)


TORCH = {
    "absolute": torch.abs,
    "add": lambda a, b: a + b,
    "attention": attention,
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "cast": lambda x, dtype: x.to(getattr(torch, dtype)),
    "clip": lambda x, low=None, high=None: torch.clamp(x, low, high),
    "concatenate": lambda *xs, axis=0: torch.cat(xs, axis),
    "copy_to_ranks": of_one_rank,
    "cross_entropy": cross_entropy,
    "cumsum": lambda x, axis=-1: torch.cumsum(x, axis),
    "divide": lambda a, b: a / b,
    "dropout": dropout,
    "embedding": lambda weight, ids: F.embedding(ids.long(), weight),
    "exp": torch.exp,
    "gather": lambda x, ids, axis=-1: torch.take_along_dim(x, ids, axis),
    "gather_from_ranks": of_one_rank,
    "gelu": lambda x, bias=None, approximate="none": F.gelu(x if bias is None else x + bias, approximate=approximate),
    "getitem": getitem,
    "index_add": lambda x, rows, values: torch.index_add(x, 0, rows, values),
    "layer_norm": layer_norm,
    "linear": F.linear,
    "linear_cross_entropy": linear_cross_entropy,
    "log": torch.log,
    "log1p": torch.log1p,
    "log_softmax": lambda x, axis=-1: F.log_softmax(x, axis),
    "logsumexp": lambda x, axis=-1, keepdims=False: torch.logsumexp(x, axis, keepdims),
    "matmul": torch.matmul,
    "max": maximum_over,
    "maximum": lambda a, b: torch.maximum(*tensors(a, b)),
    "mean": lambda x, axis=None, keepdims=False: torch.mean(x, axis, keepdims),
    "minimum": lambda a, b: torch.minimum(*tensors(a, b)),
    "multiply": lambda a, b: a * b,
    "negative": torch.neg,
    "pad": pad,
    "power": lambda x, exponent: x**exponent,
    "relu": F.relu,
    "reshape": lambda x, shape: x.reshape(shape),
    "rms_norm": rms_norm,
    "rope": rope,
    "scatter_sum_to_ranks": of_one_rank,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softmax": lambda x, axis=-1: F.softmax(x, axis),
    "sqrt": torch.sqrt,
    "squared_relu": lambda x: F.relu(x) ** 2,
    "stack": lambda *xs, axis=0: torch.stack(xs, axis),
    "subtract": lambda a, b: a - b,
    "sum": lambda x, axis=None, keepdims=False: torch.sum(x, axis, keepdims),
    "sum_over_ranks": of_one_rank,
    "swiglu": lambda gate, up: F.silu(gate) * up,
    "tanh": torch.tanh,
    "transpose": lambda x, axes=None: x.permute(axes or tuple(reversed(range(x.ndim)))),
    "where": torch.where,
}

NO_HALF = {
    "rope": "PyTorch has no rotary embedding, and calls its complex half numbers experimental",
}
"""Primitives whose peer in float16 is PyTorch's float32 result, rounded once."""

OTHER_CONVENTION = {
    ("cross_entropy", "all ignored"): "the mean over no targets is 0 here and 0/0 = NaN in PyTorch",
    ("cross_entropy", "nothing"): "the same",
    ("linear_cross_entropy", "all ignored"): "the same",
    ("linear_cross_entropy", "nothing"): "the same",
}
"""Cases in which PyTorch computes something else, on purpose. At kinks and ties both choose alike (torch.amax and ours
share equally among several maxima; torch.max along an axis would give all to one)."""

FEW_DIGITS = {
    ("swiglu", "0-d"): "one number whose gate, -1.33, is near the zero of swish': all digits but a few cancel",
}
"""Cases left out in float32, where an error of one unit in the last place of an exponential decides the comparison."""

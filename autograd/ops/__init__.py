"""Every op, one file a family."""

from autograd.ops.activation import gelu, relu, sigmoid, silu, squared_relu, swiglu
from autograd.ops.attention import attention, attention_mask
from autograd.ops.collective import copy_to_ranks, gather_from_ranks, scatter_sum_to_ranks, sum_over_ranks
from autograd.ops.dropout import dropout
from autograd.ops.elementwise import (
    absolute,
    add,
    cast,
    clip,
    divide,
    exp,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    sqrt,
    subtract,
    tanh,
    where,
)  # fmt: skip
from autograd.ops.index import embedding, gather, index_add
from autograd.ops.linalg import linear, matmul
from autograd.ops.loss import cross_entropy, linear_cross_entropy
from autograd.ops.norm import layer_norm, rms_norm
from autograd.ops.reduce import cumsum, max, mean, sum
from autograd.ops.rope import rope
from autograd.ops.shape import broadcast_to, concatenate, getitem, pad, reshape, split, stack, transpose
from autograd.ops.softmax import log_softmax, logsumexp, softmax

__all__ = [
    "absolute", "add", "attention", "attention_mask", "broadcast_to", "cast", "clip", "concatenate", "copy_to_ranks",
    "cross_entropy", "cumsum", "divide", "dropout", "embedding", "exp", "gather", "gather_from_ranks", "gelu",
    "getitem", "index_add", "layer_norm", "linear", "linear_cross_entropy", "log", "log1p", "log_softmax", "logsumexp",
    "matmul", "max", "maximum", "mean", "minimum", "multiply", "negative", "pad", "power", "relu", "reshape",
    "rms_norm", "rope", "scatter_sum_to_ranks", "sigmoid", "silu", "softmax", "split", "sqrt", "squared_relu", "stack",
    "subtract", "sum", "sum_over_ranks", "swiglu", "tanh", "transpose", "where",
]  # fmt: skip

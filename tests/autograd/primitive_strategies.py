"""What hypothesis draws for every primitive: inputs and options of one call. A primitive without an entry fails.

An entry says which shapes and options an op takes; a `Floats` says which floating point numbers go in. So one entry
serves the proof in float64 (away from kinks), the conventions at kinks (on them), and narrow dtypes (every regime).
Most entries are a family and what is special about the op. Arrays are small, so that whole Jacobians are compared.
"""

import math
import os
from functools import partial

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, basic_indices, mutually_broadcastable_shapes
from primitive_cases import ONE_RANK, Case

from autograd.testing import LAYOUTS, arrays, laid_out

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "30"))  # the same ones each time; more for a long search


def drawn(*strategies, **named):
    quick = settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 30)
    return lambda test: quick(given(*strategies, **named)(test))


# Numbers


class Floats:
    """Draws the floating point arrays of a call: `floats(shape, domain)` is a strategy for one array.

    away: how far numbers keep from where a derivative jumps or has a pole. A central difference needs room; 0 where
    nothing is differenced.
    """

    def __init__(self, regimes=("normal", "tiny", "ties"), dtypes=("float64",), away=0.2):
        self.regimes, self.dtypes, self.away = regimes, dtypes, away

    def __call__(self, shape, domain=None):
        numbers = arrays(shape=shape, dtype=list(self.dtypes), regime=list(self.regimes), layout="contiguous")
        layouts = LAYOUTS if domain is distinct else (*LAYOUTS, "repeated")
        return st.builds(partial(self.placed, domain), numbers, st.sampled_from(layouts))

    def placed(self, domain, x, layout):
        return laid_out(np.asarray(domain(x, self.away), x.dtype) if domain else x, layout)


def off_zero(x, away):
    return x + np.copysign(away, x)


def nonzero(x, away):
    x = off_zero(x, away)
    return np.where(x == 0, 1, x)


def positive(x, away):
    return abs(nonzero(x, away))


def distinct(x, away):
    """No two elements near each other."""
    ranks = np.argsort(np.argsort(x, axis=None, kind="stable"), kind="stable").reshape(x.shape)
    return 0.37 * (ranks - x.size / 2) if away else x


def whole(x, away):
    """Near whole numbers, so that what is near halves is never near these."""
    return np.round(x) + 0.1 * np.tanh(x) if away else x


def halves(x, away):
    return whole(x, away) + 0.5 if away else x


# Shapes and axes


def shapes(min_dims=0, min_side=0, max_dims=3):
    return array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=4)


def broadcastable(count, max_dims=3):
    """Shapes that broadcast against each other, and the result's shape."""
    return mutually_broadcastable_shapes(num_shapes=count, min_side=0, max_dims=max_dims, max_side=3)


def axes(ndim):
    """One axis, counted from either end. An array without axes lets NumPy take its maximum along 0 and -1."""
    return st.integers(-max(ndim, 1), max(ndim, 1) - 1)


def several_axes(ndim):
    """None, one axis, or a tuple of them (also of none)."""
    if ndim == 0:
        return st.sampled_from([None, ()])
    return st.none() | axes(ndim) | st.lists(axes(ndim), max_size=ndim, unique_by=lambda a: a % ndim).map(tuple)


def is_reduced(i, axis, ndim):
    """Is axis `i` among those that `axis` names?"""
    return axis is None or i in {a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))}


def integers(shape, low, high):
    """An array of whole numbers in [low, high], in a drawn dtype and layout."""
    size = math.prod(shape)
    dtypes = ["int64", "int32"] if low < 0 else ["int64", "int32", "uint8"]
    return st.builds(
        lambda values, dtype, layout: laid_out(np.array(values, dtype).reshape(shape), layout),
        st.lists(st.integers(low, high) if size else st.nothing(), min_size=size, max_size=size),
        st.sampled_from(dtypes),
        st.sampled_from(LAYOUTS),
    )


def perhaps_a_number(a, b):
    """Two arrays, or an array and a Python number on either side."""
    first, second = (x.flat[0].item() if x.size else 1.0 for x in (a, b))
    return st.sampled_from([(a, b), (first, b), (a, second)])


def some(**strategies):
    """Options of which each is given or left out."""
    return st.fixed_dictionaries({}, optional=strategies)


def call(*inputs, **options):
    return Case("drawn", *inputs, **options)


# Families


@st.composite
def unary(draw, floats, domain=None, options=st.just({})):  # noqa: B008
    """One array of any shape, options that do not look at the shape."""
    return call(draw(floats(draw(shapes()), domain)), **draw(options))


@st.composite
def binary(draw, floats, first=None, second=None):
    """Two that broadcast against each other; one may be a Python number."""
    left, right = draw(broadcastable(2)).input_shapes
    return call(*draw(perhaps_a_number(draw(floats(left, first)), draw(floats(right, second)))))


@st.composite
def reduction(draw, floats, domain=None, of_nothing=False):
    """Several axes, kept or not. of_nothing: may the reduced axes be empty?"""
    shape = draw(shapes())
    options = draw(some(axis=several_axes(len(shape)), keepdims=st.booleans()))
    axis = options.get("axis")
    if not of_nothing:
        shape = tuple(max(n, 1) if is_reduced(i, axis, len(shape)) else n for i, n in enumerate(shape))
    return call(draw(floats(shape, domain)), **options)


@st.composite
def along_an_axis(draw, floats, min_dims=0, min_side=1, everything=True, **options):
    """One axis, or all of them at once (None) if there is such a thing."""
    shape = draw(shapes(min_dims=min_dims, min_side=min_side))
    axis = axes(len(shape)) | st.none() if everything else axes(len(shape))
    options = draw(some(axis=axis, **options))
    if min_side == 1 and shape and draw(st.booleans()):  # empty along another axis
        shape = tuple(n if is_reduced(i, options.get("axis", -1), len(shape)) else 0 for i, n in enumerate(shape))
    return call(draw(floats(shape)), **options)


@st.composite
def norm(draw, floats, n_parameters):
    """Rows, and one parameter of the rows' length for each of weight and bias, which may be None."""
    # Two features far from their mean are normalized to ±1 whatever they are: no rounding of x shows how far the
    # rounding of its mean carries, so there is nothing to hold narrow dtypes against.
    rows, C = draw(shapes(max_dims=2)), draw(st.integers(1, 5) if floats.away else st.sampled_from([1, 3, 4, 5]))
    eps = draw(st.sampled_from([None, 1e-3, 0.1]))
    # The function bends within √eps where a row is nearly constant. A small eps goes with rows that are not.
    x = draw(floats((*rows, max(C, 2) if floats.away and eps is None else C), distinct if eps is None else None))
    parameters = [draw(floats(x.shape[-1:])) for _ in range(n_parameters)]
    if n_parameters == 2:
        parameters[1] = draw(st.sampled_from([parameters[1], None]))
    return call(x, *parameters, **({} if eps is None else {"eps": eps}))


# Ops that are a family of their own


@st.composite
def attention(draw, floats):
    B, T, extra = draw(st.integers(0, 2)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    G, share, D = (draw(st.integers(1, 2)) for _ in range(3))
    H, S = G * share, T + extra
    q, k, v = (draw(floats(shape)) for shape in ((B, H, T, D), (B, G, S, D), (B, G, S, D)))
    *others, keys = (n if draw(st.booleans()) else 1 for n in (B, H, T, S))
    # One bias for all keys of a query changes only how each score is rounded; no rounding of the bias shows that.
    bias_shape = (*others, keys if floats.away else S)[draw(st.integers(0, 4 if floats.away else 3)) :]
    options = draw(
        some(
            causal=st.booleans(),
            window=st.none() | st.integers(1, S + 1),
            segments=st.none() | integers((B, S), -1, 2),
            bias=st.none() | floats(bias_shape).map(some_hidden),
        )
    )
    return call(q, k, v, **options)


def some_hidden(bias):
    """-inf where the numbers are large."""
    return np.where(bias > 0.5, -np.inf, bias)


@st.composite
def broadcast_to(draw, floats):
    drawn_shapes = draw(broadcastable(2))
    return call(draw(floats(drawn_shapes.input_shapes[0])), shape=drawn_shapes.result_shape)


@st.composite
def cast(draw, floats):
    return call(draw(floats(draw(shapes()))), dtype=np.dtype(draw(st.sampled_from(floats.dtypes))))


@st.composite
def clip(draw, floats):
    """Limits on whole numbers, or half-way between them with numbers near whole ones."""
    low, high = draw(st.none() | st.integers(-2, 0)), draw(st.none() | st.integers(1, 2))
    off = 0.5 if floats.away else 0.0
    limits = {"low": low, "high": high}
    limits = {name: limit + off for name, limit in limits.items() if limit is not None}
    return call(draw(floats(draw(shapes()), whole)), **limits)


@st.composite
def of_one_rank(draw, floats, rows=False):
    """Rows need an axis, and may be cut."""
    x = draw(floats(draw(shapes(min_dims=int(rows)))))
    return call(x, ranks=ONE_RANK, **(draw(some(cuts=st.just((0, len(x))))) if rows else {}))


@st.composite
def concatenate(draw, floats):
    shape = draw(shapes(min_dims=1))
    axis = draw(axes(len(shape)))
    parts = []
    for length in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)):
        part = list(shape)
        part[axis] = length
        parts.append(draw(floats(tuple(part))))
    return call(*parts, **({} if axis == 0 and draw(st.booleans()) else {"axis": axis}))


@st.composite
def cross_entropy(draw, floats):
    rows, V = draw(shapes(max_dims=2)), draw(st.integers(1, 5))
    targets, options = draw(targets_and_options(rows, V))
    return call(draw(floats((*rows, V))), targets, **options)


@st.composite
def targets_and_options(draw, rows, V):
    options = draw(
        some(
            reduction=st.sampled_from(["mean", "sum", "none"]),
            label_smoothing=st.sampled_from([0.0, 0.1, 1.0]),
            ignore_index=st.sampled_from([-100, -1, 0, V - 1]),
        )
    )
    targets = draw(integers(rows, 0, V - 1))
    if options.get("ignore_index") == -1:
        targets = targets.astype(np.int64) - draw(st.sampled_from([0, 1])) * (targets == 0)
    return targets, options


@st.composite
def linear_cross_entropy(draw, floats):
    rows, C, V = draw(shapes(max_dims=2)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    targets, options = draw(targets_and_options(rows, V))
    x, weight = draw(floats((*rows, C))), draw(floats((V, C)))
    return call(x, weight, targets, **options, **draw(some(chunk=st.integers(1, 3 * V))))


@st.composite
def dropout(draw, floats):
    x = draw(floats(draw(shapes())))
    seeds = st.integers(0, 2**40)
    if x.ndim:
        seeds |= st.lists(seeds, min_size=len(x), max_size=len(x)).map(partial(np.array, dtype=np.int64))
    return call(x, rate=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9])), seed=draw(seeds))


@st.composite
def embedding(draw, floats):
    V, C = draw(st.integers(1, 5)), draw(st.integers(0, 4))
    return call(draw(floats((V, C))), draw(integers(draw(shapes(max_dims=2)), 0, V - 1)))


@st.composite
def gather(draw, floats):
    """Ids in place of the axis; along the others ids and x broadcast."""
    shape = draw(shapes(min_dims=1, min_side=1))
    options = draw(some(axis=axes(len(shape))))
    axis = options.get("axis", -1) % len(shape)
    of_ids = [n if draw(st.booleans()) else 1 for n in shape]
    of_x = [n if n == m else draw(st.sampled_from([1, n])) for n, m in zip(shape, of_ids, strict=True)]
    of_ids[axis], of_x[axis] = draw(st.integers(0, 4)), shape[axis]
    return call(draw(floats(tuple(of_x))), draw(integers(tuple(of_ids), 0, shape[axis] - 1)), **options)


@st.composite
def gelu(draw, floats):
    options, with_bias = draw(some(approximate=st.sampled_from(["none", "tanh"]))), draw(st.booleans())
    x = draw(floats(draw(shapes(min_dims=with_bias))))
    bias = [draw(floats(x.shape[-1:]))] if with_bias else draw(st.sampled_from([[], [None]]))
    return call(x, *bias, **options)


@st.composite
def getitem(draw, floats):
    x = draw(floats(draw(shapes())))
    return call(x, index=draw(basic_indices(x.shape, allow_newaxis=True)))


@st.composite
def index_add(draw, floats):
    V, N, rest = draw(st.integers(1, 4)), draw(st.integers(0, 4)), draw(shapes(max_dims=2))
    return call(draw(floats((V, *rest))), draw(integers((N,), 0, V - 1)), draw(floats((N, *rest))))


@st.composite
def linear(draw, floats):
    rows = draw(shapes(max_dims=2))
    n_in, n_out = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    x, weight = draw(floats((*rows, n_in))), draw(floats((n_out, n_in)))
    bias = draw(st.sampled_from(["given", "None", "left out"]))
    return call(x, weight, *{"given": [draw(floats((n_out,)))], "None": [None], "left out": []}[bias])


@st.composite
def matmul(draw, floats):
    M, K, N = (draw(st.integers(0, 3)) for _ in range(3))
    left, right = draw(broadcastable(2, max_dims=2)).input_shapes
    return call(draw(floats((*left, M, K))), draw(floats((*right, K, N))))


@st.composite
def pad(draw, floats):
    x = draw(floats(draw(shapes(min_dims=1))))
    widths = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in x.shape)
    return call(x, widths=widths, **draw(some(value=st.sampled_from([0.0, -1.5]))))


@st.composite
def power(draw, floats):
    """A positive base has every exponent; another base a whole number, which may be an array without gradient."""
    if draw(st.booleans()):
        return draw(binary(floats, positive))
    x = draw(floats(draw(shapes()), nonzero))
    return call(x, draw(st.sampled_from([-2, -1, 0, 1, 2, 3, 2.0, np.array(3), np.array([2])])))


@st.composite
def reshape(draw, floats):
    x = draw(floats(draw(shapes())))
    shape = list(draw(st.permutations(x.shape)))
    shape.insert(draw(st.integers(0, len(shape))), 1)
    if x.size and draw(st.booleans()):
        shape[draw(st.integers(0, len(shape) - 1))] = -1
    return call(x, shape=draw(st.sampled_from([tuple(shape), -1, (x.size,)])) if x.ndim else tuple(shape))


@st.composite
def rope(draw, floats):
    B, H, T = (draw(st.integers(0, 3)) for _ in range(3))
    shape = (B, H, T, draw(st.sampled_from([2, 4])))
    positions = st.none() | integers((T,), 0, 200) | integers((B, T), 0, 200)
    if draw(st.booleans()):
        shape, positions = shape[2:], st.none() | integers((T,), 0, 200)
    options = some(
        positions=positions, theta=st.sampled_from([10000.0, 100.0]), layout=st.sampled_from(["half", "interleaved"])
    )
    return call(draw(floats(shape)), **draw(options))


@st.composite
def stack(draw, floats):
    shape, n = draw(shapes()), draw(st.integers(1, 3))
    return call(*(draw(floats(shape)) for _ in range(n)), **draw(some(axis=axes(len(shape) + 1))))


@st.composite
def swiglu(draw, floats):
    shape = draw(shapes())
    return call(draw(floats(shape)), draw(floats(shape)))


@st.composite
def transpose(draw, floats):
    x = draw(floats(draw(shapes())))
    order = st.permutations(range(x.ndim)).flatmap(
        lambda order: st.tuples(*(st.sampled_from([i, i - x.ndim]) for i in order))
    )
    return call(x, **draw(some(axes=st.none() | order)))


@st.composite
def where(draw, floats):
    of_condition, left, right = draw(broadcastable(3)).input_shapes
    a, b = draw(perhaps_a_number(draw(floats(left)), draw(floats(right))))
    return call(draw(integers(of_condition, 0, 1)).astype(bool), a, b)


STRATEGIES = {
    "absolute": partial(unary, domain=off_zero),
    "add": binary,
    "attention": attention,
    "broadcast_to": broadcast_to,
    "cast": cast,
    "clip": clip,
    "concatenate": concatenate,
    "copy_to_ranks": of_one_rank,
    "cross_entropy": cross_entropy,
    "cumsum": partial(along_an_axis, min_dims=1, min_side=0, everything=False),
    "divide": partial(binary, second=nonzero),
    "dropout": dropout,
    "embedding": embedding,
    "exp": unary,
    "gather": gather,
    "gather_from_ranks": partial(of_one_rank, rows=True),
    "gelu": gelu,
    "getitem": getitem,
    "index_add": index_add,
    "layer_norm": partial(norm, n_parameters=2),
    "linear": linear,
    "linear_cross_entropy": linear_cross_entropy,
    "log": partial(unary, domain=positive),
    "log1p": partial(unary, domain=positive),
    "log_softmax": along_an_axis,
    "logsumexp": partial(along_an_axis, keepdims=st.booleans()),
    "matmul": matmul,
    "max": partial(reduction, domain=distinct),
    "maximum": partial(binary, first=whole, second=halves),
    "mean": reduction,
    "minimum": partial(binary, first=whole, second=halves),
    "multiply": binary,
    "negative": unary,
    "pad": pad,
    "power": power,
    "relu": partial(unary, domain=off_zero),
    "reshape": reshape,
    "rms_norm": partial(norm, n_parameters=1),
    "rope": rope,
    "scatter_sum_to_ranks": partial(of_one_rank, rows=True),
    "sigmoid": unary,
    "silu": unary,
    "softmax": along_an_axis,
    "sqrt": partial(unary, domain=positive),
    "squared_relu": partial(unary, domain=off_zero),
    "stack": stack,
    "subtract": binary,
    "sum": partial(reduction, of_nothing=True),
    "sum_over_ranks": of_one_rank,
    "swiglu": swiglu,
    "tanh": unary,
    "transpose": transpose,
    "where": where,
}

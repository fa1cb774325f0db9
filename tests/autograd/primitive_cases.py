"""Inputs for every primitive, awkward ones first. A primitive without an entry here fails the suite.

Values keep away from kinks and from ties of more than two, where there is no derivative to compare with; what the ops
do there is tested in `test_op_values.py`. Shapes are small, so that whole Jacobians are compared.
"""

import zlib

import numpy as np

from autograd.engine import is_floating
from autograd.testing import sample_array


class Case:
    """Positional inputs and options of one call. narrow=False: only in float64, for a reason given where it stands."""

    def __init__(self, label, *inputs, narrow=True, **options):
        self.narrow = narrow
        self.label, self.options = label, options
        self.inputs = [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]

    def __repr__(self):
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.label}: {', '.join(map(repr, self.inputs))}{options}"

    def floats(self):
        """Positions of the inputs that have gradients."""
        return [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and is_floating(x.dtype)]

    def cast(self, dtype):
        """The inputs with floating point arrays in another dtype, layout kept."""
        return [x.astype(dtype) if i in self.floats() else x for i, x in enumerate(self.inputs)]


_made = 0


def normal(*shape, layout="contiguous"):
    """Normal values, other ones at every call, the same ones at every run."""
    global _made
    _made += 1
    return sample_array(shape, layout=layout, seed=zlib.crc32(f"{_made} {shape}".encode()))


def positive(*shape, layout="contiguous"):
    return abs(normal(*shape, layout=layout)) + 0.3


def off_zero(*shape, layout="contiguous"):
    """Normal values with the interval (-0.2, 0.2) cut out."""
    x = normal(*shape, layout=layout)
    return x + np.copysign(0.2, x)


def distinct(*shape):
    """Every value another one, at least 0.37 apart, shuffled."""
    n = int(np.prod(shape))
    return (np.random.default_rng(n).permutation(n).reshape(shape) - n / 2) * 0.37


def off(x, gap=0.2):
    """Something broadcast against `x` that is nowhere close to it."""
    return x + np.where(np.random.default_rng(x.size).random(x.shape) < 0.5, -gap, gap)


def unary(make):
    return [
        Case("0-d", make()),
        Case("matrix", make(3, 5)),
        Case("size-1 axes", make(1, 4, 1)),
        Case("empty", make(0, 3)),
        Case("transposed", make(3, 5, layout="transposed")),
        Case("strided", make(4, 3, layout="strided")),
        Case("reversed", make(7, layout="reversed")),
    ]


def binary(make, other=None):
    other = other or make
    return [
        Case("0-d", make(), other()),
        Case("equal shapes", make(3, 5), other(3, 5)),
        Case("row", make(3, 5), other(5)),
        Case("column", make(3, 1), other(3, 5)),
        Case("outer", make(3, 1, 2), other(4, 1)),
        Case("number on the right", make(3, 2), 1.5),
        Case("number on the left", 1.5, other(3, 2)),
        Case("0-d against matrix", make(), other(2, 3)),
        Case("empty", make(0, 3), other(3)),
        Case("empty repeated", make(1, 3), other(0, 3)),
        Case("layouts", make(3, 4, layout="transposed"), other(3, 4, layout="strided")),
    ]


def extremum():
    a = normal(3, 5)
    b = normal(3, 1, 4)
    return [
        Case("0-d", normal(), normal() + 5),
        Case("equal shapes", a, off(a)),
        Case("row", normal(3, 5) * 0.1, np.array([-1.0, 1, -1, 1, 1])),
        Case("outer", np.round(normal(1, 2, 4)) + 0.3, np.round(b)),
        Case("number", off_zero(3, 2), 0.0),
        Case("empty", normal(0, 3), normal(3)),
        Case("layouts", normal(3, 4, layout="transposed") - 4, normal(3, 4, layout="strided") + 4),
    ]


def reductions(make):
    return [
        Case("0-d", make()),
        Case("all", make(3, 5)),
        Case("last axis", make(2, 3, 4), axis=-1),
        Case("middle, kept", make(2, 3, 4), axis=1, keepdims=True),
        Case("two axes", make(2, 3, 4), axis=(0, -1)),
        Case("two axes, kept", make(2, 3, 4), axis=(-3, 2), keepdims=True),
        Case("size-1 axis", make(3, 1), axis=1),
        Case("all, kept", make(2, 3), keepdims=True),
    ]


def layouts_of(make, *shape, **options):
    return [Case(layout, make(*shape, layout=layout), **options) for layout in ("transposed", "strided", "reversed")]


def softmaxes(**options):
    return [
        Case("row", normal(3, 5), **options),
        Case("first axis", normal(3, 5), axis=0, **options),
        Case("middle axis", normal(2, 3, 4), axis=1, **options),
        Case("one entry", normal(3, 1), **options),
        Case("vector", normal(7), **options),
        Case("empty", normal(0, 4), **options),
        Case("far from zero", normal(3, 5) + 1000, **options),
        # p is all but one, the gradient 1e-6 dy: in float32 what is left of 1 - p is rounding
        Case("spread", 8 * normal(3, 5), narrow=False, **options),
        Case("spread a little", 3 * normal(3, 5), **options),
        *layouts_of(normal, 3, 5, **options),
    ]


def norms(*extra):
    return [
        Case("rows", normal(3, 5), normal(5), *(e(5) for e in extra)),
        Case("three axes", normal(2, 3, 4), normal(4), *(e(4) for e in extra)),
        Case("one row", normal(6), normal(6), *(e(6) for e in extra)),
        Case("no rows", normal(0, 3), normal(3), *(e(3) for e in extra)),
        Case("large eps", normal(2, 5), normal(5), *(e(5) for e in extra), eps=0.5),
        Case("far from zero", normal(3, 5) + 8, normal(5), *(e(5) for e in extra)),
        Case("layouts", normal(3, 5, layout="transposed"), normal(5, layout="strided"), *(e(5) for e in extra)),
        Case("strided", normal(2, 5, layout="strided"), normal(5, layout="reversed"), *(e(5) for e in extra)),
    ]


def heads(B, H, G, T, S, D, layout="contiguous"):
    return normal(B, H, T, D, layout=layout), normal(B, G, S, D, layout=layout), normal(B, G, S, D, layout=layout)


ALL = slice(None)

CASES = {
    "absolute": unary(off_zero),
    "add": binary(normal),
    "attention": [
        Case("one head", *heads(1, 1, 1, 3, 3, 2)),
        Case("H/G = 1", *heads(2, 2, 2, 3, 3, 2)),
        Case("H/G = 2", *heads(1, 4, 2, 3, 3, 3)),
        Case("H/G = H", *heads(2, 3, 1, 3, 3, 2)),
        Case("all visible", *heads(1, 2, 1, 3, 3, 2), causal=False),
        Case("one query, many keys", *heads(2, 2, 1, 1, 7, 3)),
        Case("S > T", *heads(1, 2, 2, 3, 5, 2)),
        Case("S > T, all visible", *heads(1, 2, 1, 2, 5, 3), causal=False),
        Case("window", *heads(1, 2, 1, 5, 5, 2), window=2),
        Case("window of one", *heads(1, 1, 1, 4, 4, 2), window=1),
        Case("window, S > T", *heads(1, 2, 1, 2, 6, 2), window=3),
        Case("window, not causal", *heads(1, 1, 1, 4, 4, 2), window=2, causal=False),
        Case("segments", *heads(2, 2, 1, 5, 5, 2), segments=np.array([[0, 0, 1, 1, 1], [4, 4, 4, 4, 2]])),
        Case("padding", *heads(2, 2, 1, 4, 4, 2), segments=np.array([[0, 0, -1, -1], [-1, -1, -1, -1]])),
        Case("segments, S > T", *heads(1, 2, 1, 2, 5, 2), segments=np.array([[-1, 0, 0, 1, 1]])),
        Case("segments, window", *heads(1, 1, 1, 5, 5, 2), segments=np.array([[0, 0, 0, 1, 1]]), window=2),
        Case("segments, not causal", *heads(1, 2, 1, 4, 4, 2), segments=np.array([[0, 0, 1, 1]]), causal=False),
        Case("bias by key", *heads(2, 2, 1, 3, 3, 2), bias=normal(3)),
        Case("bias by head", *heads(2, 2, 2, 3, 4, 2), bias=normal(2, 3, 4)),
        Case("bias masks a row", *heads(1, 2, 1, 4, 4, 2), bias=np.array([[0.5], [-np.inf], [0.5], [0]])),
        Case("transposed", *heads(2, 2, 1, 3, 4, 3, layout="transposed")),
        Case("strided", *heads(1, 2, 2, 3, 3, 2, layout="strided")),
        Case("no batch", *heads(0, 2, 1, 3, 3, 2)),
    ],
    "broadcast_to": [
        Case("0-d", normal(), shape=(2, 3)),
        Case("new axes", normal(3), shape=(2, 4, 3)),
        Case("size-1 axes", normal(2, 1, 3, 1), shape=(2, 4, 3, 2)),
        Case("nothing to do", normal(2, 3), shape=(2, 3)),
        Case("to nothing", normal(1, 3), shape=(0, 3)),
        Case("strided", normal(3, 1, layout="strided"), shape=(3, 5)),
    ],
    "cast": [*unary(lambda *shape, **layout: normal(*shape, **layout)), Case("vector", normal(7))],
    "clip": [
        Case("both", distinct(3, 5) + 0.05, low=-1.0, high=1.0),
        Case("low", off_zero(2, 3), low=0.0),
        Case("high", off_zero(2, 3), high=0.0),
        Case("nothing", normal(2, 3), low=-100.0),
        Case("0-d", np.asarray(0.4), low=0.0, high=1.0),
        Case("empty", normal(0, 3), low=0.0),
        *layouts_of(off_zero, 3, 5, low=0.0),
    ],
    "concatenate": [
        Case("rows", normal(2, 3), normal(1, 3), normal(4, 3)),
        Case("columns", normal(2, 3), normal(2, 1), axis=-1),
        Case("one array", normal(2, 3), axis=1),
        Case("an empty one", normal(2, 3), normal(0, 3), normal(1, 3)),
        Case("middle axis", normal(2, 1, 3), normal(2, 4, 3), axis=1),
        Case("layouts", normal(3, 2, layout="transposed"), normal(3, 2, layout="strided")),
    ],
    "cross_entropy": [
        Case("mean", normal(5, 7), np.array([0, 6, 3, 3, 1])),
        Case("sum", normal(5, 7), np.array([0, 6, 3, 3, 1]), reduction="sum"),
        Case("none", normal(2, 3, 4), np.array([[0, 3, 3], [1, 2, 0]]), reduction="none"),
        Case("batch of rows", normal(2, 3, 4), np.array([[0, 3, 3], [1, 2, 0]])),
        Case("some ignored", normal(5, 4), np.array([0, -100, 3, -100, 1])),
        Case("ignored, sum", normal(5, 4), np.array([0, -100, 3, -100, 1]), reduction="sum"),
        Case("ignored, none", normal(5, 4), np.array([0, -100, 3, -100, 1]), reduction="none"),
        Case("another ignore_index", normal(4, 3), np.array([0, 2, 2, 1]), ignore_index=2),
        Case("all ignored", normal(3, 4), np.full(3, -100)),
        Case("smoothing", normal(4, 5), np.array([0, 4, 2, 2]), label_smoothing=0.1),
        Case("smoothing, ignored", normal(4, 5), np.array([0, -100, 2, 2]), label_smoothing=0.3, reduction="sum"),
        Case("smoothing, none", normal(2, 2, 3), np.array([[0, -100], [2, 2]]), label_smoothing=1.0, reduction="none"),
        Case("one row", normal(6), np.array(4)),
        Case("one class", normal(3, 1), np.array([0, 0, 0])),
        Case("nothing", normal(0, 4), np.zeros(0, int)),
        Case("small unsigned targets", normal(3, 4), np.array([0, 3, 1], np.uint8)),
        Case("transposed", normal(5, 4, layout="transposed"), np.array([0, 1, 2, 3, 0])),
        Case("strided", normal(2, 3, 4, layout="strided"), np.array([[0, 3, 3], [1, 2, 0]])),
    ],
    "cumsum": [
        Case("last axis", normal(3, 5)),
        Case("first axis", normal(3, 5), axis=0),
        Case("middle axis", normal(2, 3, 2), axis=-2),
        Case("one entry", normal(3, 1)),
        Case("empty", normal(0, 3)),
        *layouts_of(normal, 3, 5),
    ],
    "divide": binary(normal, off_zero),
    "dropout": [
        Case("half", normal(5, 6), rate=0.5),
        Case("none falls out", normal(2, 3), rate=0.0),
        Case("most", normal(4, 9), rate=0.9),
        Case("0-d", normal(), rate=0.5),
        Case("empty", normal(0, 3), rate=0.5),
        Case("transposed", normal(3, 5, layout="transposed"), rate=0.3),
        Case("strided", normal(3, 5, layout="strided"), rate=0.3),
    ],
    "embedding": [
        Case("matrix of ids", normal(5, 3), np.array([[0, 4], [2, 1]])),
        Case("repeated", normal(4, 3), np.array([1, 1, 3, 1, 0])),
        Case("one id", normal(4, 3), np.array(2)),
        Case("no ids", normal(4, 3), np.zeros((0,), int)),
        Case("small ids", normal(6, 2), np.array([5, 0, 5], np.uint8)),
        Case("layouts", normal(5, 3, layout="transposed"), np.array([[0, 4, 2], [1, 1, 1]]).T),
        Case("strided", normal(5, 3, layout="strided"), np.arange(10)[::-2] // 2),
    ],
    "exp": unary(normal),
    "gather": [
        Case("one per row", normal(4, 5), np.array([[0], [4], [2], [2]])),
        Case("repeated", normal(2, 3), np.array([[1, 1, 1, 0], [2, 2, 0, 2]])),
        Case("first axis", normal(4, 3), np.array([[3, 0, 3], [3, 1, 1]]), axis=0),
        Case("middle axis", normal(2, 4, 3), np.array([[[3, 0, 3]], [[1, 1, 2]]]), axis=1),
        Case("ids broadcast", normal(3, 4), np.array([[2, 2]])),
        Case("vector", normal(6), np.array([5, 0, 5])),
        Case("no ids", normal(3, 4), np.zeros((3, 0), int)),
        Case("layouts", normal(4, 5, layout="transposed"), np.array([[0, 4, 2, 2], [0, 1, 1, 3]]).T),
        Case("strided", normal(4, 5, layout="strided"), np.array([[0], [4], [2], [2]])),
    ],
    "gelu": [
        *unary(normal),
        Case("far", np.array([-30.0, -6, -2, -0.9, 0, 0.5, 1.1, 2.5, 6, 30])),
        *(Case(f"tanh {case.label}", *case.inputs, approximate="tanh") for case in unary(normal)),
        Case("tanh far", np.array([-30.0, -6, -2, 0, 0.5, 2.5, 6, 30]), approximate="tanh"),
    ],
    "getitem": [
        Case("slice", normal(5, 3), index=slice(1, 4)),
        Case("row", normal(4, 3), index=2),
        Case("last row", normal(4, 3), index=-1),
        Case("NumPy integer", normal(4, 3), index=np.int64(1)),
        Case("mixed", normal(4, 3, 5), index=(1, ..., slice(None, None, 2))),
        Case("backwards", normal(5), index=slice(None, None, -2)),
        Case("new axis", normal(2, 3), index=(ALL, None, 1)),
        Case("one element", normal(2, 3), index=(1, 2)),
        Case("nothing", normal(4, 3), index=slice(2, 2)),
        Case("0-d", normal(), index=()),
        Case("strided", normal(4, 3, layout="strided"), index=(ALL, slice(1, None))),
    ],
    "index_add": [
        Case("rows", normal(4, 3), np.array([2, 0]), normal(2, 3)),
        Case("repeated", normal(4, 3), np.array([2, 0, 2, 2]), normal(4, 3)),
        Case("vector", normal(5), np.array([4, 4, 1]), normal(3)),
        Case("no rows", normal(4, 3), np.zeros(0, int), normal(0, 3)),
        Case("three axes", normal(3, 2, 2), np.array([1, 1]), normal(2, 2, 2)),
        Case("layouts", normal(4, 3, layout="transposed"), np.array([2, 0, 2]), normal(3, 3, layout="strided")),
    ],
    "layer_norm": [
        *norms(normal),
        Case("no bias", normal(3, 5), normal(5)),
        Case("bias None", normal(3, 5), normal(5), None),
    ],
    "linear": [
        Case("matrix", normal(3, 4), normal(5, 4), normal(5)),
        Case("batch", normal(2, 3, 4), normal(5, 4), normal(5)),
        Case("no bias", normal(2, 3, 2), normal(3, 2)),
        Case("bias None", normal(2, 3), normal(3, 3), None),
        Case("vector", normal(4), normal(3, 4), normal(3)),
        Case("one out", normal(3, 4), normal(1, 4), normal(1)),
        Case("no rows", normal(0, 3), normal(2, 3), normal(2)),
        Case(
            "layouts", normal(3, 4, layout="transposed"), normal(5, 4, layout="strided"), normal(5, layout="reversed")
        ),
        Case("batch, layouts", normal(2, 3, 4, layout="transposed"), normal(5, 4, layout="transposed")),
    ],
    "log": unary(positive),
    "log1p": [*unary(positive), Case("tiny", 1e-3 * normal(3, 4))],
    "log_softmax": softmaxes(),
    "logsumexp": [*softmaxes(), Case("kept", normal(3, 5), keepdims=True), Case("kept, first", normal(3, 5), axis=0)],
    "matmul": [
        Case("matrices", normal(3, 4), normal(4, 5)),
        Case("row by column", normal(1, 4), normal(4, 1)),
        Case("column by row", normal(3, 1), normal(1, 2)),
        Case("batches", normal(2, 3, 4), normal(2, 4, 2)),
        Case("batch by matrix", normal(2, 3, 4), normal(4, 2)),
        Case("matrix by batch", normal(3, 4), normal(2, 4, 2)),
        Case("batches broadcast", normal(2, 1, 2, 3), normal(3, 3, 2)),
        Case("size-1 batch", normal(1, 2, 3), normal(2, 3, 2)),
        Case("no rows", normal(0, 3), normal(3, 2)),
        Case("nothing to sum", normal(2, 0), normal(0, 3)),
        Case("layouts", normal(3, 4, layout="transposed"), normal(4, 5, layout="strided")),
        Case("batches, layouts", normal(2, 3, 4, layout="strided"), normal(2, 4, 2, layout="transposed")),
    ],
    "max": [
        Case("0-d", distinct()),
        Case("all", distinct(3, 5)),
        Case("last axis", distinct(2, 3, 4), axis=-1),
        Case("middle, kept", distinct(2, 3, 4), axis=1, keepdims=True),
        Case("two axes", distinct(2, 3, 4), axis=(0, -1)),
        Case("all, kept", distinct(2, 3), keepdims=True),
        Case("size-1 axis", distinct(3, 1), axis=1),
        Case("no rows", normal(0, 3), axis=1),
        Case("reversed", distinct(3, 5)[::-1, ::-1], axis=0),
        Case("transposed", distinct(3, 5).T, axis=0),
    ],
    "maximum": extremum(),
    "mean": [*reductions(normal), *layouts_of(normal, 3, 5, axis=0)],
    "minimum": extremum(),
    "multiply": binary(normal),
    "negative": unary(normal),
    "pad": [
        Case("both sides", normal(2, 3), widths=((1, 2), (0, 1))),
        Case("with a value", normal(4), widths=((2, 0),), value=7.0),
        Case("nothing", normal(2, 3), widths=((0, 0), (0, 0))),
        Case("around nothing", normal(0, 2), widths=((1, 1), (0, 0))),
        Case("strided", normal(2, 3, layout="strided"), widths=((1, 0), (1, 1))),
    ],
    "power": [
        *binary(positive, normal),
        Case("square", normal(3, 4), 2),
        Case("cube of negatives", -positive(3, 4), 3),
        Case("inverse", off_zero(3, 4), -1),
        Case("root", positive(3, 4), 0.5),
        Case("zeroth", normal(3, 4), 0),
        Case("array of whole exponents", off_zero(4), np.array([0, 1, 2, 3])),
    ],
    "relu": unary(off_zero),
    "reshape": [
        Case("flat", normal(2, 3), shape=(6,)),
        Case("minus one", normal(2, 3, 2), shape=(3, -1)),
        Case("to 0-d", normal(1, 1), shape=()),
        Case("from 0-d", normal(), shape=(1, 1)),
        Case("a number", normal(2, 3), shape=-1),
        Case("empty", normal(0, 3), shape=(3, 0)),
        *layouts_of(normal, 3, 4, shape=(2, 6)),
    ],
    "rms_norm": norms(),
    "rope": [
        Case("half", normal(2, 2, 3, 4)),
        Case("interleaved", normal(2, 2, 3, 4), layout="interleaved"),
        Case("positions (T,)", normal(1, 2, 3, 4), positions=np.array([5, 0, 3])),
        Case("positions (T,), interleaved", normal(1, 2, 3, 4), positions=np.array([5, 0, 3]), layout="interleaved"),
        Case("positions (B, T)", normal(2, 2, 2, 4), positions=np.array([[5, 0], [1, 7]])),
        Case(
            "positions (B, T), interl.", normal(2, 1, 2, 4), positions=np.array([[5, 0], [1, 7]]), layout="interleaved"
        ),
        Case("one pair", normal(1, 1, 5, 2)),
        Case("another theta", normal(1, 1, 5, 6), theta=100.0),
        Case("far away", normal(1, 1, 2, 4), positions=np.array([100_000, 100_001])),
        Case("two axes", normal(3, 4)),
        Case("no positions", normal(1, 2, 0, 4)),
        Case("transposed", normal(2, 2, 3, 4, layout="transposed")),
        Case("strided", normal(2, 2, 3, 4, layout="strided"), layout="interleaved"),
    ],
    "sigmoid": unary(normal),
    "silu": unary(normal),
    "softmax": softmaxes(),
    "sqrt": unary(positive),
    "squared_relu": unary(off_zero),
    "stack": [
        Case("first", normal(2, 3), normal(2, 3)),
        Case("last", normal(2, 3), normal(2, 3), normal(2, 3), axis=-1),
        Case("middle", normal(2, 3), normal(2, 3), axis=1),
        Case("0-d", normal(), normal()),
        Case("one array", normal(3), axis=1),
        Case("empty", normal(0, 3), normal(0, 3)),
        Case("layouts", normal(3, 2, layout="transposed"), normal(3, 2, layout="reversed"), axis=1),
    ],
    "subtract": binary(normal),
    "sum": [*reductions(normal), Case("no rows", normal(0, 3), axis=0), *layouts_of(normal, 3, 5, axis=0)],
    "swiglu": [Case(case.label, *case.inputs, normal(*case.inputs[0].shape)) for case in unary(normal)],
    "tanh": unary(normal),
    "transpose": [
        Case("reversed", normal(2, 3, 4)),
        Case("permuted", normal(2, 3, 4), axes=(1, 2, 0)),
        Case("negative axes", normal(2, 3, 4), axes=(-1, 0, -2)),
        Case("0-d", normal()),
        Case("vector", normal(3)),
        Case("empty", normal(0, 3)),
        Case("strided", normal(3, 4, layout="strided")),
    ],
    "where": [
        Case("equal shapes", np.array([[True, False, True]] * 2), normal(2, 3), normal(2, 3)),
        Case("broadcast", np.array([[True], [False]]), normal(3), normal(2, 1)),
        Case("number", np.array([True, False, True]), normal(3), 0.0),
        Case("number first", np.array([True, False, True]), -1.0, normal(3)),
        Case("0-d", np.array(True), normal(), normal()),
        Case("empty", np.zeros((0, 3), bool), normal(3), normal(0, 3)),
        Case(
            "layouts", np.array([[True, False]] * 3), normal(3, 2, layout="transposed"), normal(3, 2, layout="strided")
        ),
    ],
}

# Cases that the planted wrong gradients of test_mutations.py asked for. They stand apart since `normal` gives other
# values at every call: a case among those above would change the values of all after it.

SQUARE = (3, 3)  # a gradient transposed has the right shape


def linear_cross_entropies():
    """chunk=8: two rows of four logits at a time. Every reduction in one piece and in several, the last one smaller."""
    x, weight, targets = normal(5, 3), normal(4, 3), np.array([0, -100, 3, -100, 1])
    in_pieces = {"chunk": 8}
    return [
        Case("mean", normal(5, 3), normal(4, 3), np.array([0, 3, 3, 1, 2])),
        Case("mean in pieces", normal(5, 3), normal(4, 3), np.array([0, 3, 3, 1, 2]), **in_pieces),
        Case("sum", normal(5, 3), normal(4, 3), np.array([0, 3, 3, 1, 2]), reduction="sum"),
        Case("sum in pieces", normal(5, 3), normal(4, 3), np.array([0, 3, 3, 1, 2]), reduction="sum", **in_pieces),
        Case("none", normal(5, 3), normal(4, 3), np.array([0, 3, 3, 1, 2]), reduction="none"),
        Case(
            "none in pieces",
            normal(2, 3, 3),
            normal(4, 3),
            np.array([[0, 3, 3], [1, 2, 0]]),
            reduction="none",
            **in_pieces,
        ),
        Case("some ignored", x, weight, targets, **in_pieces),
        Case("ignored, sum", x, weight, targets, reduction="sum", **in_pieces),
        Case("ignored, none", x, weight, targets, reduction="none", **in_pieces),
        Case("another ignore_index", x, weight, np.array([0, 2, 2, 1, 3]), ignore_index=2, **in_pieces),
        Case("all ignored", x, weight, np.full(5, -100), **in_pieces),
        Case("smoothing", x, weight, targets, label_smoothing=0.1, **in_pieces),
        Case("smoothing, none", x, weight, targets, label_smoothing=1.0, reduction="none", **in_pieces),
        Case("batch of rows", normal(2, 3, 2), normal(4, 2), np.array([[0, 3, 3], [1, 2, 0]]), **in_pieces),
        Case("a row at a time", normal(4, 3), normal(5, 3), np.array([0, 4, 2, 2]), chunk=1),
        Case("one row", normal(3), normal(4, 3), np.array(2)),
        Case("one class", normal(3, 2), normal(1, 2), np.array([0, 0, 0])),
        Case("nothing", normal(0, 3), normal(4, 3), np.zeros(0, int)),
        Case("small unsigned targets", normal(3, 2), normal(4, 2), np.array([0, 3, 1], np.uint8)),
        Case("layouts", normal(5, 3, layout="transposed"), normal(4, 3, layout="strided"), targets, **in_pieces),
        Case("square", normal(*SQUARE), normal(*SQUARE), np.array([0, 2, 1])),
        Case("square, none", normal(*SQUARE), normal(*SQUARE), np.array([0, 2, 1]), reduction="none", chunk=3),
    ]


for name, cases in {
    "absolute": [Case("square", off_zero(*SQUARE)), Case("zero", np.array([-1.5, 0, 0.7]))],
    "add": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "attention": [Case("square", *heads(1, 1, 1, 3, 3, 3)), Case("square, H/G = 2", *heads(1, 2, 1, 4, 4, 4))],
    "broadcast_to": [Case("square", normal(*SQUARE), shape=(2, 3, 3))],
    "cast": [Case("square", normal(*SQUARE))],
    "clip": [Case("square", off_zero(*SQUARE), low=0.0)],
    "concatenate": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "cross_entropy": [Case("square", normal(*SQUARE), np.array([0, 2, 1]))],
    "cumsum": [Case("square", normal(*SQUARE))],
    "divide": [Case("square", normal(*SQUARE), off_zero(*SQUARE))],
    "dropout": [Case("square", normal(*SQUARE), rate=0.3)],
    "embedding": [Case("square", normal(*SQUARE), np.array([0, 2, 2]))],
    "exp": [Case("square", normal(*SQUARE))],
    "gather": [Case("square", normal(*SQUARE), np.array([[0], [2], [2]]))],
    "gelu": [
        Case("square", normal(*SQUARE)),
        Case("tanh square", normal(*SQUARE), approximate="tanh"),
        *(
            Case(f"{approximate}, bias, {label}", x, bias, approximate=approximate)
            for approximate in ("none", "tanh")
            for label, x, bias in (
                ("matrix", normal(3, 5), normal(5)),
                ("three axes", normal(2, 3, 4), normal(4)),
                ("vector", normal(4), normal(4)),
                ("None", normal(2, 3), None),
                ("no rows", normal(0, 3), normal(3)),
                ("one column", normal(3, 1), normal(1)),
                ("layouts", normal(3, 4, layout="transposed"), normal(4, layout="reversed")),
                ("strided", normal(3, 4, layout="strided"), normal(4, layout="strided")),
            )
        ),
    ],
    "getitem": [Case("square", normal(*SQUARE), index=slice(1, None))],
    "index_add": [Case("square", normal(*SQUARE), np.array([2, 0, 2]), normal(*SQUARE))],
    "layer_norm": [Case("square", normal(*SQUARE), normal(3), normal(3))],
    "linear": [Case("square", normal(*SQUARE), normal(*SQUARE), normal(3))],
    "linear_cross_entropy": linear_cross_entropies(),
    "log": [Case("square", positive(*SQUARE))],
    "log1p": [Case("square", positive(*SQUARE))],
    "log_softmax": [Case("square", normal(*SQUARE))],
    "logsumexp": [Case("square", normal(*SQUARE))],
    "matmul": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    # At a tie of two, half to each is the convention and is also what the central difference says.
    "max": [
        Case("square", distinct(*SQUARE), axis=0),
        Case("ties of two", np.array([[1.0, 3, 3], [2, 2, 0.5]]), axis=-1),
        Case("a tie, all axes", np.array([[1.0, 3, -1], [3, 2, 0.5]])),
        Case("0-d, axis", distinct(), axis=-1),
    ],
    "maximum": [
        Case("square", distinct(*SQUARE), off(distinct(*SQUARE))),
        Case("ties", np.array([1.0, 2, -1, 0.5]), np.array([1.0, 3, -1, 0])),
    ],
    "mean": [
        Case("square", normal(*SQUARE), axis=0),
        Case("no results", normal(0, 3), axis=1),
    ],
    "minimum": [
        Case("square", distinct(*SQUARE), off(distinct(*SQUARE))),
        Case("ties", np.array([1.0, 2, -1, 0.5]), np.array([1.0, 3, -1, 0])),
    ],
    "multiply": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "negative": [Case("square", normal(*SQUARE))],
    "pad": [Case("square", normal(*SQUARE), widths=((1, 1), (1, 0)))],
    "power": [
        Case("two squares", positive(*SQUARE), normal(*SQUARE)),
        Case("powers of zero", np.array([0, 0, 1.5, 0.7]), np.array([2.0, 3, 2, -1])),
        Case("zeroth power of zero", np.array([0, 1.5, -2]), 0),
    ],
    "relu": [Case("square", off_zero(*SQUARE))],
    "reshape": [Case("square", normal(*SQUARE), shape=(9,))],
    "rms_norm": [Case("square", normal(*SQUARE), normal(3))],
    "rope": [Case("square", normal(1, 1, 4, 4)), Case("square, interleaved", normal(4, 4), layout="interleaved")],
    "sigmoid": [Case("square", normal(*SQUARE))],
    "silu": [Case("square", normal(*SQUARE))],
    "softmax": [Case("square", normal(*SQUARE))],
    "sqrt": [Case("square", positive(*SQUARE))],
    "squared_relu": [Case("square", off_zero(*SQUARE))],
    "stack": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "subtract": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "sum": [Case("square", normal(*SQUARE), axis=0), Case("0-d, axis", normal(), axis=-1)],
    "swiglu": [Case("square", normal(*SQUARE), normal(*SQUARE))],
    "tanh": [Case("square", normal(*SQUARE))],
    "transpose": [Case("square", normal(*SQUARE)), Case("cube", normal(2, 2, 2), axes=(1, 2, 0))],
    "where": [
        Case("square", np.arange(9).reshape(SQUARE) % 4 == 1, normal(*SQUARE), normal(*SQUARE)),
        Case("columns", np.array([[True, False], [False, True], [True, True]]), normal(3, 1), normal(2)),
    ],
}.items():
    CASES.setdefault(name, []).extend(cases)


class OneRank:
    """What collectives are asked of where there is one process. What many ranks compute is proven in
    `tests/tinyllm/training/parallel/test_collectives.py`."""

    rank, size = 0, 1

    def all_reduce(self, array):
        assert array.ndim == 1
        assert array.flags.c_contiguous

    def reduce_scatter(self, array, cuts):
        self.all_reduce(array)
        assert cuts == (0, array.size)

    all_gather = reduce_scatter


ONE_RANK = OneRank()


def collectives():
    return [
        Case("matrix", normal(3, 5), ranks=ONE_RANK),
        Case("vector", normal(7), ranks=ONE_RANK),
        Case("three axes", normal(2, 1, 4), ranks=ONE_RANK),
        Case("empty", normal(0, 3), ranks=ONE_RANK),
        Case("square", normal(*SQUARE), ranks=ONE_RANK),
        *layouts_of(normal, 3, 5, ranks=ONE_RANK),
    ]


def collectives_of_rows():
    return [*collectives(), Case("cuts", normal(4, 2), ranks=ONE_RANK, cuts=(0, 4))]


CASES |= {
    "copy_to_ranks": [Case("0-d", normal(), ranks=ONE_RANK), *collectives()],
    "gather_from_ranks": collectives_of_rows(),
    "scatter_sum_to_ranks": collectives_of_rows(),
    "sum_over_ranks": [Case("0-d", normal(), ranks=ONE_RANK), *collectives()],
}

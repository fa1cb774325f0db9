"""More inputs for every primitive than `primitive_cases.py` has: hundreds of elements, shapes drawn from seeds.

Small cases find wrong formulas; errors of rounding show their size only where there is much to round.
"""

import numpy as np
from primitive_cases import CASES, ONE_RANK, Case

SEEDS = range(3)


class Draw:
    """Values and shapes from one generator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def positive(self, *shape):
        return abs(self.normal(*shape)) + 0.3

    def off_zero(self, *shape):
        x = self.normal(*shape)
        return x + np.copysign(0.2, x)

    def distinct(self, *shape):
        n = int(np.prod(shape))
        return (self.rng.permutation(n).reshape(shape) - n / 2) * 0.37

    def ids(self, n, *shape):
        return self.rng.integers(0, n, shape)

    def shape(self):
        """One to four axes, up to about a thousand elements."""
        axes = int(self.rng.integers(1, 5))
        return tuple(int(n) for n in self.rng.integers(2, {1: 1000, 2: 32, 3: 10, 4: 6}[axes], axes))

    def partner(self, shape):
        """A shape that broadcasts against `shape`: some axes of length one, perhaps the first ones missing."""
        other = [n if self.rng.random() < 0.6 else 1 for n in shape]
        return tuple(other[int(self.rng.integers(len(shape))) :])


def unary(values, **options):
    return lambda draw: [Case("drawn shape", getattr(draw, values)(*draw.shape()), **options)]


def binary(values, other=None):
    def cases(draw):
        shape = draw.shape()
        a, b = getattr(draw, values), getattr(draw, other or values)
        return [
            Case("drawn shapes", a(*shape), b(*draw.partner(shape))),
            Case("drawn shapes, swapped", a(*draw.partner(shape)), b(*shape)),
            Case("same drawn shape", a(*shape), b(*shape)),
        ]

    return cases


def reduced(values):
    """Over each axis of a drawn shape, and over all."""

    def cases(draw):
        x = getattr(draw, values)(*draw.shape())
        return [Case("all", x), *(Case(f"axis {axis}", x, axis=axis, keepdims=True) for axis in range(x.ndim))]

    return cases


def along_axes(draw):
    x = draw.normal(*draw.shape())
    return [Case(f"axis {axis}", x, axis=axis) for axis in range(x.ndim)]


def apart(draw):
    """Two arrays that are nowhere closer than 0.2."""
    a = draw.normal(*draw.shape())
    gap = np.where(draw.rng.random(a.shape) < 0.5, -1, 1) * draw.positive(*a.shape)
    return [Case("drawn shape", a, a + gap)]


def attentions(draw):
    def heads(B, H, G, T, S, D):
        return draw.normal(B, H, T, D), draw.normal(B, G, S, D), draw.normal(B, G, S, D)

    documents = np.sort(draw.ids(3, 2, 24), axis=1)
    documents[0, -5:] = -1
    return [
        Case("causal", *heads(2, 4, 4, 33, 33, 16)),
        Case("grouped", *heads(2, 6, 2, 20, 20, 8)),
        Case("more keys", *heads(1, 4, 2, 7, 50, 32)),
        Case("all visible", *heads(1, 2, 2, 40, 40, 64), causal=False),
        Case("window", *heads(1, 2, 1, 40, 40, 8), window=9),
        Case("documents", *heads(2, 4, 2, 24, 24, 8), segments=documents),
        Case("bias", *heads(2, 4, 2, 16, 16, 8), bias=draw.normal(4, 16, 16)),
    ]


def cross_entropies(draw):
    V, rows = 97, 150
    targets = draw.ids(V, rows)
    ignored = np.where(draw.rng.random(rows) < 0.3, -100, targets)
    return [
        Case("mean", 3 * draw.normal(rows, V), targets),
        Case("ignored", draw.normal(rows, V), ignored),
        Case("smoothing", 3 * draw.normal(rows, V), ignored, label_smoothing=0.1),
        Case("sum", draw.normal(rows, V), ignored, reduction="sum"),
        Case("none", draw.normal(3, 50, V), targets.reshape(3, 50), reduction="none"),
        Case("large vocabulary", draw.normal(4, 5000), draw.ids(5000, 4)),
    ]


def norms(*extra):
    def cases(draw):
        return [
            Case("wide rows", draw.normal(20, 256), draw.normal(256), *(draw.normal(256) for _ in extra)),
            Case("many rows", draw.normal(6, 50, 24), draw.normal(24), *(draw.normal(24) for _ in extra)),
        ]

    return cases


def reshaped(draw):
    x = draw.normal(*draw.shape())
    return [Case("flat", x, shape=-1), Case("backwards", x, shape=tuple(reversed(x.shape)))]


def joined(draw):
    shape = draw.shape()
    return [Case("drawn shape", *(draw.normal(*shape) for _ in range(3)), axis=axis) for axis in (0, len(shape) - 1)]


def linears(draw):
    return [
        Case("wide", draw.normal(17, 200), draw.normal(60, 200), draw.normal(60)),
        Case("batch", draw.normal(3, 30, 48), draw.normal(64, 48), draw.normal(64)),
        Case("no bias", draw.normal(5, 9, 32), draw.normal(32, 32)),
    ]


def linear_cross_entropies(draw):
    C, V, rows = 48, 97, 150
    targets = draw.ids(V, rows)
    ignored = np.where(draw.rng.random(rows) < 0.3, -100, targets)
    x, weight, in_pieces = draw.normal(rows, C), 0.3 * draw.normal(V, C), {"chunk": 40 * V}
    return [
        Case("mean", x, weight, targets),
        Case("ignored", x, weight, ignored, **in_pieces),
        Case("smoothing", x, weight, ignored, label_smoothing=0.1, **in_pieces),
        Case("sum", x, weight, ignored, reduction="sum", **in_pieces),
        Case("none", draw.normal(3, 50, C), weight, targets.reshape(3, 50), reduction="none", **in_pieces),
        Case("large vocabulary", draw.normal(4, C), 0.3 * draw.normal(1000, C), draw.ids(1000, 4), chunk=2000),
    ]


def matmuls(draw):
    return [
        Case("wide", draw.normal(30, 200), draw.normal(200, 17)),
        Case("batches", draw.normal(4, 9, 64), draw.normal(4, 64, 20)),
        Case("batches broadcast", draw.normal(3, 1, 16, 24), draw.normal(5, 24, 8)),
        Case("matrix by batch", draw.normal(12, 40), draw.normal(6, 40, 5)),
    ]


def broadcasts(draw):
    shape = draw.shape()
    return [Case("drawn shape", draw.normal(*draw.partner(shape)), shape=shape)]


def slices(draw):
    return [
        Case("block", draw.normal(30, 20), index=(slice(3, 25), slice(None, None, 3))),
        Case("mixed", draw.normal(6, 30, 7), index=(2, ..., None, slice(1, -1))),
        Case("backwards", draw.normal(40, 11), index=slice(35, 2, -3)),
    ]


LARGER = {
    "absolute": unary("off_zero"),
    "add": binary("normal"),
    "attention": attentions,
    "broadcast_to": broadcasts,
    "cast": unary("normal"),
    "clip": unary("off_zero", low=0.0, high=100.0),
    "concatenate": joined,
    "copy_to_ranks": unary("normal", ranks=ONE_RANK),
    "cross_entropy": cross_entropies,
    "cumsum": along_axes,
    "divide": binary("normal", "off_zero"),
    "dropout": unary("normal", rate=0.3),
    "embedding": lambda draw: [
        Case("many ids", draw.normal(50, 24), draw.ids(50, 6, 40)),
        Case("few rows", draw.normal(3, 24), draw.ids(3, 300)),
    ],
    "exp": unary("normal"),
    "gather": lambda draw: [
        Case("last axis", draw.normal(40, 30), draw.ids(30, 40, 20)),
        Case("few entries", draw.normal(4, 5), draw.ids(5, 4, 200)),
        Case("first axis", draw.normal(30, 8, 4), draw.ids(30, 60, 8, 4), axis=0),
    ],
    "gather_from_ranks": unary("normal", ranks=ONE_RANK),
    "gelu": lambda draw: [
        *unary("normal")(draw),
        *unary("normal", approximate="tanh")(draw),
        Case("bias", draw.normal(5, 30, 20), draw.normal(20)),
        Case("tanh, bias", draw.normal(100, 20), draw.normal(20), approximate="tanh"),
    ],
    "getitem": slices,
    "index_add": lambda draw: [
        Case("many rows", draw.normal(40, 24), draw.ids(40, 100), draw.normal(100, 24)),
        Case("few rows", draw.normal(3, 24), draw.ids(3, 100), draw.normal(100, 24)),
    ],
    "layer_norm": norms("bias"),
    "linear": linears,
    "linear_cross_entropy": linear_cross_entropies,
    "log": unary("positive"),
    "log1p": unary("positive"),
    "log_softmax": along_axes,
    "logsumexp": along_axes,
    "matmul": matmuls,
    "max": reduced("distinct"),
    "maximum": apart,
    "mean": reduced("normal"),
    "minimum": apart,
    "multiply": binary("normal"),
    "negative": unary("normal"),
    "pad": lambda draw: [Case("three axes", draw.normal(7, 9, 5), widths=((2, 0), (1, 3), (0, 4)), value=-1.5)],
    "power": lambda draw: [
        *binary("positive", "normal")(draw),
        *(Case(f"exponent {c}", draw.positive(300), c) for c in (-2, 0.5, 3)),
    ],
    "relu": unary("off_zero"),
    "reshape": reshaped,
    "rms_norm": norms(),
    "rope": lambda draw: [
        Case("half", draw.normal(2, 4, 40, 32)),
        Case("interleaved", draw.normal(2, 4, 40, 32), layout="interleaved"),
        Case("positions of each text", draw.normal(3, 2, 20, 16), positions=draw.ids(5000, 3, 20), theta=5e5),
    ],
    "scatter_sum_to_ranks": unary("normal", ranks=ONE_RANK),
    "sigmoid": unary("normal"),
    "silu": unary("normal"),
    "softmax": along_axes,
    "sqrt": unary("positive"),
    "squared_relu": unary("off_zero"),
    "stack": joined,
    "subtract": binary("normal"),
    "sum": reduced("normal"),
    "sum_over_ranks": unary("normal", ranks=ONE_RANK),
    "swiglu": lambda draw: [Case("drawn shape", *(draw.normal(20, 30) for _ in range(2)))],
    "tanh": unary("normal"),
    "transpose": lambda draw: [
        Case("reversed", draw.normal(*draw.shape())),
        Case("permuted", draw.normal(7, 9, 5, 3), axes=(2, 0, 3, 1)),
    ],
    "where": lambda draw: [
        Case("drawn shape", draw.rng.random((20, 1, 5)) < 0.4, draw.normal(20, 30, 5), draw.normal(30, 1))
    ],
}


def cases_of(name):
    """All cases of a primitive, with the options that `primitive_cases.py` leaves to its tests."""
    cases = list(CASES[name])
    for seed in SEEDS:
        cases += LARGER[name](Draw(seed))
    if name == "cast":
        dtypes = ("float16", "float32", "float64")
        return [Case(f"{case.label} to {dtype}", *case.inputs, dtype=dtype) for case in cases for dtype in dtypes]
    return cases

"""The limit of a step: its matrix products alone, by NumPy, on arrays that are there already.

The products are those of the fused model: one for query, key and value together, scores over all T x T pairs. The list
follows from the size alone, so nothing that either side does can move it. It is what a step costs whose every other
part is free, with NumPy's BLAS: a causal kernel that leaves out the upper half of the scores, or a faster BLAS, may
pass it.
"""

import collections
import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np


@dataclasses.dataclass(frozen=True)
class Product:
    """(batch, rows, inner) @ (batch, inner, columns)"""

    rows: int
    inner: int
    columns: int
    batch: int = 1

    @property
    def flops(self):
        return 2 * self.batch * self.rows * self.inner * self.columns

    def __str__(self):
        times = f"{self.batch} x " if self.batch > 1 else ""
        return f"{times}({self.rows}, {self.inner}) @ ({self.inner}, {self.columns})"


def linear_products(rows, n_in, n_out):
    """y = x Wᵀ forward; dx = dy W and dW = dyᵀ x backward."""
    return [Product(rows, n_in, n_out), Product(rows, n_out, n_in), Product(n_out, rows, n_in)]


def attention_products(case):
    """s = q kᵀ and dp = dy vᵀ; y = p v, dv = pᵀ dy, dq = ds k and dk = dsᵀ q."""
    T, D, batch = case.context, case.head_width, case.batch * case.heads
    return [Product(T, D, T, batch)] * 2 + [Product(T, T, D, batch)] * 4


def training_products(case):
    """Of one step, forward and backward, in the order of the layers."""
    from bench_cases import Attention

    C, rows = case.width, case.batch * case.context
    attention = Attention(case.context, case.batch, case.heads, C // case.heads)
    block = [
        *linear_products(rows, C, 3 * C),
        *attention_products(attention),
        *linear_products(rows, C, C),
        *linear_products(rows, C, 4 * C),
        *linear_products(rows, 4 * C, C),
    ]
    return block * case.layers + linear_products(rows, C, case.vocab_size)


class Products:
    """Computes a list of products, each shape as often as it occurs, on contiguous float32 arrays made beforehand."""

    def __init__(self, products):
        self.counts = collections.Counter(products)
        numbers = np.random.default_rng(0).standard_normal(2**16, dtype=np.float32)
        self.factors = {}
        for p in self.counts:
            left = np.resize(numbers, (p.batch, p.rows, p.inner))
            right = np.resize(numbers, (p.batch, p.inner, p.columns))
            self.factors[p] = left, right, np.zeros((p.batch, p.rows, p.columns), np.float32)

    def turn(self, count):
        by_shape = dict.fromkeys(self.counts, 0.0)
        for _ in range(count):
            for product, times in self.counts.items():
                left, right, result = self.factors[product]
                began = time.perf_counter()
                for _ in range(times):
                    np.matmul(left, right, out=result)
                by_shape[product] += time.perf_counter() - began
        shapes = [
            {"product": str(p), "count": self.counts[p], "flops": p.flops * self.counts[p], "seconds": seconds / count}
            for p, seconds in by_shape.items()
        ]
        return {"seconds": sum(by_shape.values()), "shapes": shapes}


class Reading:
    """A token cannot be had without reading every weight once: so many threads sum as many numbers."""

    def __init__(self, case, threads):
        from tinyllm.models import Decoder

        self.pieces = np.array_split(np.ones(Decoder(case.config()).num_parameters(), np.float32), threads)
        self.threads = ThreadPoolExecutor(threads)

    def turn(self, count):
        began = time.perf_counter()
        for _ in range(count):
            list(self.threads.map(np.sum, self.pieces))
        return {"seconds": time.perf_counter() - began}


def training(case, options):
    return Products(training_products(case))


def attention(case, options):
    return Products(attention_products(case))


def decoding(case, options):
    return Reading(case, options["threads"])

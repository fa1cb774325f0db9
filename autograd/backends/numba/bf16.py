"""The product of two bfloat16 matrices on processors that multiply pairs of such numbers at once (AVX512-BF16).

Their instruction takes sixteen float32 sums and, for each, two numbers of a row of A and two of a column of B:

    c_j <- c_j + a_0 b_0j + a_1 b_1j                                                     j = 0 … 15

which is twice the arithmetic of a float32 product in the same time. A tile of 12 rows and 32 columns of C stays in
registers while the pairs go by. For that B is laid out beforehand in panels of 32 columns, the two numbers of a pair
side by side, and A, where its rows do not lie that way already, in panels of 12 rows.

Products and sums are float32; only subnormal numbers are taken for zero. Each c is summed in the order of k, whatever
the number of threads. On a processor without the instruction this file must not be imported: it could not be compiled.
"""

import math

import numpy as np
from llvmlite import ir
from numba import float32, int64, prange, types, uint16, uint32, void
from numba.core import cgutils
from numba.extending import intrinsic

from autograd.backends.numba.building import compiled, inlined
from autograd.backends.numba.halves import to_bfloat16, widened
from autograd.backends.numba.launch import pool, run_on

HEIGHT, WIDTH = 12, 32  # of a tile: 24 registers of 16 sums, two for B, and A is read as it is needed
LANES = 16
VECTORS = WIDTH // LANES


class BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloat)

    def __hash__(self):
        return hash("bfloat")


SUMS, PAIRS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(BFloat(), 2 * LANES)
WORDS, WORD = ir.VectorType(ir.IntType(32), LANES), ir.IntType(32)
ADDRESS = ir.IntType(64)


def tile_of(height):
    """tile(a, row, pair, b, pairs, c): a tile of C, `height` rows of 32 sums, is the product of rows of A and a panel.

    a, b, c: addresses of the first pair of A, of the panel, of float32 to write. row, pair: the bytes from one row of A
    to the next and from one pair to the next. pairs: how many, at least one.
    """

    @intrinsic
    def tile(typing, a, row, pair, b, pairs, c):
        def generate(context, builder, signature, arguments):
            a, row, pair, b, pairs, c = arguments
            name, kind = "llvm.x86.avx512bf16.dpbf16ps.512", ir.FunctionType(SUMS, [SUMS, PAIRS, PAIRS])
            add_products = cgutils.get_or_insert_function(builder.module, kind, name)
            before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)

            builder.position_at_end(loop)
            k, at_a, at_b = (builder.phi(ADDRESS) for _ in range(3))
            sums = [builder.phi(SUMS) for _ in range(height * VECTORS)]
            columns = [load(builder, at_b, 64 * i, WORDS, align=64) for i in range(VECTORS)]
            added, place = [], at_a
            for i in range(height):
                both = everywhere(builder, load(builder, place, 0, WORD, align=2))
                for s, column in zip(sums[i * VECTORS : (i + 1) * VECTORS], columns, strict=True):
                    added.append(builder.call(add_products, [s, both, builder.bitcast(column, PAIRS)]))
                place = builder.add(place, row)
            following = builder.add(k, ADDRESS(1))
            for phi, start, step in ((k, ADDRESS(0), ADDRESS(1)), (at_a, a, pair), (at_b, b, ADDRESS(4 * WIDTH))):
                phi.add_incoming(start, before)
                phi.add_incoming(builder.add(phi, step), loop)
            for phi, value in zip(sums, added, strict=True):
                phi.add_incoming(ir.Constant(SUMS, [0.0] * LANES), before)
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)

            builder.position_at_end(after)
            for i, value in enumerate(added):
                to = builder.inttoptr(builder.add(c, ADDRESS(64 * i)), SUMS.as_pointer())
                builder.store(value, to, align=64)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return tile


def load(builder, address, offset, kind, align):
    pointer = builder.inttoptr(builder.add(address, ADDRESS(offset)), kind.as_pointer())
    return builder.load(pointer, align=align)


def everywhere(builder, word):
    """A pair of A in all sixteen places."""
    one = builder.insert_element(ir.Constant(WORDS, ir.Undefined), word, WORD(0))
    return builder.bitcast(builder.shuffle_vector(one, one, ir.Constant(WORDS, [0] * LANES)), PAIRS)


tile_of_12, tile_of_4, tile_of_1 = tile_of(12), tile_of(4), tile_of(1)


@inlined
def pairs_of_rows(x, panel, first, width):
    """panel[k, j] = (x[2k, first + j], x[2k + 1, first + j]), zero where there are none; x (K, n)"""
    here = min(width, x.shape[1] - first)
    for k in range(len(panel)):
        out, upper, odd = panel[k], x[2 * k, first:], 2 * k + 1 == len(x)
        lower = upper if odd else x[2 * k + 1, first:]
        mask = uint32(0) if odd else uint32(0xFFFFFFFF)
        if here == width:
            for j in range(width):
                out[j] = uint32(upper[j]) | ((uint32(lower[j]) << uint32(16)) & mask)
        else:
            for j in range(here):
                out[j] = uint32(upper[j]) | ((uint32(lower[j]) << uint32(16)) & mask)
            for j in range(here, width):
                out[j] = uint32(0)


@inlined
def pairs_of_columns(x, panel, first, width):
    """panel[k, j] = (x[first + j, 2k], x[first + j, 2k + 1]), zero where there are none; x (n, K)"""
    K = x.shape[1]
    for j in range(width):
        if first + j < len(x):
            xs = x[first + j]
            for k in range(K // 2):
                panel[k, j] = uint32(xs[2 * k]) | (uint32(xs[2 * k + 1]) << uint32(16))
            if K % 2:
                panel[K // 2, j] = uint32(xs[K - 1])
        else:
            panel[:, j] = uint32(0)


source, panels = types.Array(uint16, 2, "C", readonly=True), uint32[:, :, ::1]


@compiled(void(source, panels), parallel=True)
def lay_out_rows_12(x, out):
    for i in prange(len(out)):
        pairs_of_rows(x, out[i], i * 12, 12)


@compiled(void(source, panels), parallel=True)
def lay_out_rows_32(x, out):
    for i in prange(len(out)):
        pairs_of_rows(x, out[i], i * 32, 32)


@compiled(void(source, panels), parallel=True)
def lay_out_columns_12(x, out):
    for i in prange(len(out)):
        pairs_of_columns(x, out[i], i * 12, 12)


@compiled(void(source, panels), parallel=True)
def lay_out_columns_32(x, out):
    for i in prange(len(out)):
        pairs_of_columns(x, out[i], i * 32, 32)


@compiled(void(*[int64] * 6, float32[::1], uint16[:, ::1], int64), parallel=True)
def multiply(a, row, pair, panel, b, pairs, bias, y, height):
    """y = A B + bias, `height` rows of it, a multiple of 12, by one thread at a time.

    a, row, pair: as in tile_of; panel: the bytes from twelve rows of A to the next. b: the address of B's panels, each
    of that many pairs.
    """
    M, N = y.shape
    for block in prange((M + height - 1) // height):
        memory = np.empty(HEIGHT * WIDTH + LANES, np.float32)
        c = memory[(-memory.ctypes.data % 64) // 4 :]
        end = min((block + 1) * height, M)
        for first in range(0, N, WIDTH):
            here = b + first * pairs * 4
            i = block * height
            while i < end:
                at = a + i // HEIGHT * panel + i % HEIGHT * row
                if end - i >= 12:
                    tile_of_12(at, row, pair, here, pairs, c.ctypes.data)
                    rows = 12
                elif end - i >= 4:
                    tile_of_4(at, row, pair, here, pairs, c.ctypes.data)
                    rows = 4
                else:
                    tile_of_1(at, row, pair, here, pairs, c.ctypes.data)
                    rows = 1
                for r in range(rows):
                    ys, cs = y[i + r, first : first + WIDTH], c[r * WIDTH : (r + 1) * WIDTH]
                    biases = bias[first : first + WIDTH]
                    for j in range(len(ys)):
                        ys[j] = to_bfloat16(cs[j] + biases[j])
                i += rows


def product(a, b, bias=None):
    """a b + bias of bfloat16 matrices (M, K) and (K, N), none of these 0, and (N,); rounded once."""
    (M, K), N = a.shape, b.shape[1]
    bias = np.zeros(N, np.float32) if bias is None else np.ascontiguousarray(widened(bias))
    a, b, y = a.view(np.uint16), b.view(np.uint16), np.empty((M, N), a.dtype)
    pairs, panels_of_b = (K + 1) // 2, in_panels(b, WIDTH)
    if a.flags.c_contiguous and K % 2 == 0:
        where = a.ctypes.data, 2 * K, 4, HEIGHT * 2 * K
    else:
        a = in_panels(a.T, HEIGHT)
        where = a.ctypes.data, 4, 4 * HEIGHT, 4 * HEIGHT * pairs
    tiles = -(-M // HEIGHT)
    height = HEIGHT * max(1, min(8, tiles // (4 * pool.most)))
    run_on(tiles, multiply, *where, panels_of_b.ctypes.data, pairs, bias, y.view(np.uint16), height)
    return y


def in_panels(x, width):
    """Columns of x (K, n), `width` at a time, the two numbers of a pair in one word: (n / width, K / 2, width)."""
    K, n = x.shape
    shape = (-(-n // width), (K + 1) // 2, width)
    memory = np.empty(math.prod(shape) + LANES, np.uint32)
    start = -memory.ctypes.data % 64 // 4
    out = memory[start : start + math.prod(shape)].reshape(shape)
    if x.T.flags.c_contiguous:
        run_on(len(out), lay_out_columns_12 if width == 12 else lay_out_columns_32, x.T, out)
    else:
        run_on(len(out), lay_out_rows_12 if width == 12 else lay_out_rows_32, np.ascontiguousarray(x), out)
    return out

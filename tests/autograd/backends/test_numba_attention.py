"""The Numba kernel of attention against its reference, at sizes around the edges of its tiles, and what it promises."""

import os
import subprocess
import sys

import numpy as np
import pytest

import autograd as ag
from autograd.kernels import load

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba import blas  # noqa: E402
from autograd.backends.numba.attention import FEW, KEYS, LONG, SHORT, parts_of  # noqa: E402
from autograd.backends.numba.launch import at_most  # noqa: E402

if not blas.available:
    pytest.skip("no BLAS library was found", allow_module_level=True)

RTOL = 5e-6  # of the largest entry: lse, some units, has its last digit at 5e-7


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def heads(H, G, T, S, D, B=1):
    """q, k, v, dy"""
    return normal(B, H, T, D), normal(B, G, S, D, seed=1), normal(B, G, S, D, seed=2), normal(B, H, T, D, seed=3)


def run(q, k, v, dy, **options):
    """[y, dq, dk, dv]"""
    leaves = [ag.Tensor(x, requires_grad=True) for x in (q, k, v)]
    y = ag.attention(*leaves, **options)
    y.backward(dy)
    return [y.data, *(leaf.grad for leaf in leaves)]


def with_kernel(*arrays, **options):
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        results = run(*arrays, **options)
    assert ag.kernels_used()["attention"] == {"numba": 1}
    return results


def compare(*arrays, rtol=RTOL, **options):
    """The kernel and, in float64, the reference. A gradient is allowed roundings of terms that cancel."""
    got, expected = with_kernel(*arrays, **options), run(*(x.astype(np.float64) for x in arrays), **options)
    floor = 0.1 * max(np.abs(x).max() for x in expected)
    for name, a, b in zip(("y", "dq", "dk", "dv"), got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float32
        assert np.abs(a - b).max() <= rtol * max(np.abs(b).max(), floor), name
    return got


LENGTHS = sorted(
    {1, FEW, FEW + 1, SHORT - 1, SHORT, SHORT + 1, LONG + 1, KEYS - 1, KEYS, KEYS + 1, 511, 512, 513, 1025}
)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T", LENGTHS)
def test_lengths_around_the_edges_of_tiles(T, causal):
    compare(*heads(2, 2, T, T, 8), causal=causal)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T", [1, 2, 5, FEW, 65, 200])
@pytest.mark.parametrize("S", [257, 700])
def test_more_keys_than_queries_and_heads_that_share_them(T, S, causal):
    compare(*heads(4, 2, T, S, 8, B=2), causal=causal)


@pytest.mark.parametrize("D", [1, 3, 64, 100])
@pytest.mark.parametrize("T", [1, 3, 300])
def test_widths_of_heads(T, D):
    compare(*heads(3, 1, T, 300, D))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [1, 7, 100, 256, 5000])
@pytest.mark.parametrize("shape", [(1, 600), (70, 600), (600, 600)], ids=str)
def test_windows(shape, window, causal):
    compare(*heads(2, 1, *shape, 8), window=window, causal=causal)


def documents(S):
    """Segments (2, S): three documents, one longer than a tile, and padding at the end, before, in the middle."""
    segments = np.repeat([0, 1, 2, -1], [S - 320, 100, 120, 100])
    other = np.where(np.arange(S) < 300, -1, np.arange(S) // 450)
    other[S // 2 : S // 2 + 5] = -1
    return np.stack([segments, other])


@pytest.mark.parametrize("options", [{}, {"causal": False}, {"window": 50}], ids=str)
@pytest.mark.parametrize("T", [1, 40, 700])
def test_segments_with_padding(T, options):
    """Queries of later documents see nothing of whole tiles, padding sees nothing at all."""
    segments = documents(700)
    y, dq, dk, dv = compare(*heads(2, 1, T, 700, 8, B=2), segments=segments, **options)
    padding = segments[:, -T:] == -1
    assert not y.transpose(0, 2, 1, 3)[padding].any()
    assert not dq.transpose(0, 2, 1, 3)[padding].any()
    for dx in (dk, dv):
        assert not dx.transpose(0, 2, 1, 3)[segments == -1].any()


BIASES = {
    "one number": lambda B, H, T, S: np.float32(0.5),
    "by key": lambda B, H, T, S: normal(S),
    "by query": lambda B, H, T, S: normal(T, 1),
    "by head and key": lambda B, H, T, S: normal(H, 1, S),
    "ALiBi": lambda B, H, T, S: -(normal(H, 1, 1) ** 2) * (np.arange(S - T, S)[:, None] - np.arange(S)).clip(0),
    "by sample": lambda B, H, T, S: normal(B, 1, T, S),
    "all": lambda B, H, T, S: normal(B, H, T, S),
    "strided": lambda B, H, T, S: normal(B, H, S, T).swapaxes(2, 3),
    "float64": lambda B, H, T, S: normal(H, T, S).astype(np.float64),
    "hides keys": lambda B, H, T, S: np.where(np.arange(S) % 300 < 20, np.float32(0), np.float32(-np.inf)),
}


@pytest.mark.parametrize("T", [1, 30, 520])
@pytest.mark.parametrize("kind", BIASES)
def test_biases(kind, T):
    compare(*heads(4, 2, T, 520, 8, B=2), bias=BIASES[kind](2, 4, T, 520))


def test_a_bias_that_does_not_fit_is_an_error():
    with ag.use_kernels("numba"), pytest.raises(ValueError, match="broadcast"):
        ag.attention(*heads(2, 1, 5, 5, 4)[:3], bias=normal(3, 5))


def test_all_restrictions_together():
    bias = normal(4, 1, 700)
    bias[:, :, 100:200] = -np.inf
    compare(*heads(4, 2, 650, 700, 8, B=2), bias=bias, segments=documents(700), window=333)


@pytest.mark.parametrize("causal", [True, False])
def test_whole_tiles_that_are_hidden_before_and_after_what_is_seen(causal):
    """Tile by tile: the first 2 KEYS are hidden from some queries, the last KEYS from others, all from the rest."""
    S = 4 * KEYS
    bias = np.zeros((S, S), np.float32)
    bias[1::3, : 2 * KEYS] = bias[::3, KEYS:] = bias[7::30] = -np.inf
    y, dq, _, _ = compare(*heads(1, 1, S, S, 8), bias=bias, causal=causal)
    assert not y[:, :, 7::30].any()
    assert not dq[:, :, 7::30].any()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("size", [3, 30, 1000])
@pytest.mark.parametrize("T", [1, 700])
def test_scores_that_rise_or_fall_from_tile_to_tile(T, size, order):
    """The largest score so far moves in each tile, or never after the first. Scores reach `size`."""
    q, k, v, dy = heads(1, 1, T, 700, 4)
    q, k = np.ones_like(q), 0.01 * k + np.linspace(-1, 1, 700, dtype=np.float32)[::order, None] * np.float32(size / 2)
    rtol = max(RTOL, 1e-6 * size)  # a score has so many digits before the point, and lse as well
    compare(q, k, v, dy, causal=False, rtol=rtol)


@pytest.mark.parametrize("T", [1, 600])
def test_scores_far_beyond_exp(T):
    """Scores up to 1e30: the largest takes all."""
    q, k, v, dy = heads(2, 2, T, 600, 4)
    got, expected = (f(q * 1e15, k * 1e15, v, dy) for f in (with_kernel, run))
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    assert all(np.isfinite(x).all() for x in got)


@pytest.mark.parametrize("T", [1, 3, 600])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_row(bad, T):
    q, k, v, dy = heads(2, 2, T, 600, 4)
    q[0, 1, T // 2, 0] = bad
    with np.errstate(invalid="ignore"):
        expected, got = run(q, k, v, dy), with_kernel(q, k, v, dy)
    np.testing.assert_array_equal(np.isnan(got[0]), np.isnan(expected[0]))
    assert np.isnan(got[0]).sum() == 4
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert np.isnan(a).any() == np.isnan(b).any()


def test_nan_in_a_late_tile_or_where_all_else_is_hidden_is_seen():
    q, k, v, dy = heads(1, 1, 3 * KEYS, 3 * KEYS, 4)
    for bias_there in (0, -np.inf):
        bias = np.full(3 * KEYS, bias_there, np.float32)
        bias[2 * KEYS + 5] = np.nan
        y = with_kernel(q, k, v, dy, bias=bias)[0]
        assert np.isnan(y[0, 0, 2 * KEYS + 5 :]).all()
        assert not np.isnan(y[0, 0, : 2 * KEYS + 5]).any()


def inside(x, before, after):
    """x (B, H, T, D) as heads in the middle of a wider (B, T, …), as one product makes q, k and v."""
    B, H, T, D = x.shape
    wide = np.full((B, T, before + H * D + after), np.nan, np.float32)
    wide[:, :, before : before + H * D] = x.transpose(0, 2, 1, 3).reshape(B, T, H * D)
    return wide[:, :, before : before + H * D].reshape(B, T, H, D).transpose(0, 2, 1, 3)


@pytest.mark.parametrize("T", [1, 5, 300])
def test_views_are_as_good_as_other_arrays(T):
    q, k, v, dy = heads(4, 2, T, 300, 8, B=2)
    expected = with_kernel(q, k, v, dy)
    same = [inside(q, 0, 24), inside(k, 32, 16), inside(v, 40, 3), inside(dy, 5, 0)]
    for a, b in zip(with_kernel(*same), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    odd = [np.asfortranarray(q), k[:, :, ::-1].copy()[:, :, ::-1], np.repeat(v, 2, axis=3)[..., ::2], dy[:, ::-1]]
    expected = with_kernel(q, k, v, np.ascontiguousarray(dy[:, ::-1]))
    for a, b in zip(with_kernel(*odd), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_axes_of_length_one_may_have_any_stride():
    q, k, v, dy = heads(3, 3, 1, 1, 4)
    thin = [x[:, :, 0][:, :, None] for x in (q, k, v, dy)]
    assert thin[0].strides[2] == 0
    for a, b in zip(with_kernel(*thin), with_kernel(q, k, v, dy), strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_are_not_written_to():
    arrays = heads(2, 1, 300, 300, 8)
    for x in arrays:
        x.flags.writeable = False
    before = [x.tobytes() for x in arrays]
    with_kernel(*arrays)
    assert [x.tobytes() for x in arrays] == before


@pytest.mark.parametrize("T", [1, 8])
def test_decoding_copies_nothing_of_a_cache(T):
    """Keys and values are the filled part of a longer buffer."""
    import tracemalloc

    q, k, v, _ = heads(4, 2, T, 1000, 16, B=2)
    buffers = [np.full((2, 2, 4000, 16), np.nan, np.float32) for _ in range(2)]
    for buffer, x in zip(buffers, (k, v), strict=True):
        buffer[:, :, :1000] = x
    with ag.use_kernels("numba"), ag.no_grad():
        expected = ag.attention(q, k, v).data
        tracemalloc.start()
        y = ag.attention(q, *(buffer[:, :, :1000] for buffer in buffers)).data
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert y.tobytes() == expected.tobytes()
    assert allocated < k.nbytes / 4


SHAPES = {
    "one head": heads(1, 1, 700, 700, 16),
    "shared": heads(6, 2, 300, 400, 16, B=2),
    "decoding": heads(8, 2, 1, 5000, 32, B=3),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bits_from_run_to_run_and_on_any_number_of_threads(shape):
    first = with_kernel(*SHAPES[shape], window=600)
    with at_most(1):
        alone = with_kernel(*SHAPES[shape], window=600)
    again = with_kernel(*SHAPES[shape], window=600)
    for a, b, c in zip(first, alone, again, strict=True):
        assert a.tobytes() == b.tobytes() == c.tobytes()


def python(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_PARTS = """
import sys
sys.path[:0] = ["tests/autograd/backends"]
from test_numba_attention import blas, compare, heads, with_kernel
assert blas.THREADS == int(sys.argv[1])
compare(*heads(1, 1, 700, 700, 8))
compare(*heads(6, 2, 65, 300, 8, B=2), window=80)
arrays = heads(2, 1, 700, 700, 8)
assert [x.tobytes() for x in with_kernel(*arrays)] == [x.tobytes() for x in with_kernel(*arrays)]
"""


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_backward_on_other_numbers_of_threads(threads):
    python(IN_PARTS, str(threads), NUMBA_NUM_THREADS=str(threads))


def test_parts_keep_threads_busy_and_are_no_more_than_there_are_blocks():
    assert [parts_of(tasks, 1000, 64) for tasks in (1, 12, 64, 60, 1000)] == [52, 5, 1, 1, 1]
    assert [parts_of(tasks, 1000, 2) for tasks in (1, 2, 3, 4, 5)] == [2, 1, 2, 1, 1]
    assert [parts_of(tasks, 1000, 1) for tasks in (1, 2, 3)] == [1, 1, 1]
    assert parts_of(1, 8, 64) == 8


MEMORY = """
import re, sys
import numpy as np, autograd as ag

def train(T):
    q, k, v = (ag.Tensor(np.ones((1, 2, T, 16), np.float32), requires_grad=True) for _ in range(3))
    with ag.use_kernels("numba"):
        ag.attention(q, k, v).backward(np.ones((1, 2, T, 16), np.float32))

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

train(600)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts from here
before = kilobytes("VmRSS")
train(int(sys.argv[1]))
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory is read from Linux")
def test_memory_grows_with_the_length_and_not_with_its_square():
    """Half as long takes half of it. MALLOC_MMAP_THRESHOLD_: arrays are not put where freed ones have been."""
    half, whole = (int(python(MEMORY, str(T), MALLOC_MMAP_THRESHOLD_="65536")) for T in (4096, 8192))
    assert 1.5 < whole / half < 2.5
    assert whole * 1024 < 8192 * 8192 * 4 / 8

"""How many threads the kernels use, and whose matrix products."""

import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba")
from autograd import kernels
from autograd.backends.numba import blas, launch, threads


def python(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name not in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment, timeout=300
    )


# --- Threads ----------------------------------------------------------------------------------------------------------


def test_two_hyperthreads_are_one_core(tmp_path):
    for cpu, pair in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(pair + "\n")
    assert len({threads.siblings(cpu, tmp_path) for cpu in range(4)}) == 2
    assert threads.siblings(7, tmp_path) == "7"  # not written down: a core of its own


@pytest.mark.parametrize(("text", "share"), [("max 100000", np.inf), ("200000 100000", 2), ("150000 100000", 2)])
def test_a_container_gets_what_it_is_granted(tmp_path, text, share):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert threads.container_share(tmp_path / "cpu.max") == share
    assert threads.container_share(tmp_path / "nothing") == np.inf


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({"NUMBA_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, None),  # a list, for nested regions: not ours
        ({"NUMBA_NUM_THREADS": "0"}, None),
        ({}, None),
    ],
)
def test_the_user_decides_and_else_the_cores(monkeypatch, variables, number):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert threads.wanted() == (number or threads.usable_cores())


PRODUCT = """
import numpy as np, autograd as ag
x, w = np.random.default_rng(0).standard_normal((2, 300, 300), np.float32)
with ag.use_kernels("numba"):
    y = ag.linear(x, w).data
from autograd.backends.numba import blas
print(blas.library and blas.library.name, blas.THREADS, float(abs(y - x @ w.T).max()) < 1e-4)
"""


@pytest.mark.parametrize("number", [1, 2, 8, 64])
def test_a_pool_of_any_size_gives_the_right_product(number):
    done = python(PRODUCT, NUMBA_NUM_THREADS=str(number))
    assert done.stdout.split()[1:] == [str(number), "True"], done.stderr


def test_little_work_runs_on_few_threads(monkeypatch):
    told = []
    monkeypatch.setattr(launch, "pool", launch.Pool())
    monkeypatch.setattr(launch.numba, "set_num_threads", told.append)
    with launch.at_most(8):
        for work in (1, launch.SMALL, launch.SMALL + 1, 3 * launch.SMALL, 100 * launch.SMALL, 101 * launch.SMALL):
            launch.launch(lambda *arrays: None, work=work)
    assert told == [1, 2, 3, 8]  # and nothing where it is the same as before


def test_another_python_thread_is_told_anew():
    import numba

    def used():
        launch.run_on(1, seen.append, None)
        return numba.get_num_threads()

    seen, others = [], []
    assert used() == 1
    thread = threading.Thread(target=lambda: others.append(used()))
    thread.start()
    thread.join()
    assert others == [1]


# --- BLAS -------------------------------------------------------------------------------------------------------------


def test_without_a_library_products_are_numpys():
    done = python(PRODUCT, AUTOGRAD_BLAS="none")
    assert done.stdout.split()[::2] == ["None", "True"], done.stderr


def test_attention_declines_without_a_library():
    done = python(
        "import numpy as np, autograd as ag\n"
        "q = np.ones((1, 1, 2, 4), np.float32)\n"
        "with ag.use_kernels('numba'):\n"
        "    ag.attention(q, q, q)\n"
        "print(dict(ag.kernels_used()['attention']))",
        AUTOGRAD_BLAS="none",
    )
    assert done.stdout == "{'numba declined': 1, 'reference': 1}\n", done.stderr


def test_a_library_that_is_asked_for_and_not_there_is_said(tmp_path):
    done = python(f"import sys; sys.prefix = {str(tmp_path)!r}\n" + PRODUCT.split("from")[0], AUTOGRAD_BLAS="mkl")
    assert "AUTOGRAD_BLAS=mkl, but there is no such library" in done.stderr
    assert "the reference runs" in done.stderr


@pytest.mark.skipif(blas.library is None or blas.library.name != "OpenBLAS", reason="NumPy's OpenBLAS is not in use")
def test_a_library_that_cannot_be_loaded_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libmkl_rt.so.2").write_bytes(b"not a library")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert next(blas.candidates()).name == "MKL"
    assert blas.find() == blas.library


@pytest.mark.skipif(blas.library is None, reason="no library by symbol")
def test_the_library_says_what_it_is():
    assert re.fullmatch(r"(OpenBLAS|MKL) \d+(\.\d+)+", blas.library.version())


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (3, 5, 7), (65, 300, 129), (300, 65, 129), (64, 64, 64)])
def test_products_of_every_layout_equal_numpys(M, N, K, accumulate):
    random = np.random.default_rng(0)

    def every_layout(n, m):
        x = random.standard_normal((n, m), np.float32)
        wide = random.standard_normal((n, 2 * m), np.float32)
        return {"plain": x, "transposed": np.asfortranarray(x), "of a wider one": wide[:, m:], "strided": wide[:, ::2]}

    for a_layout, a in every_layout(M, K).items():
        for b_layout, b in every_layout(K, N).items():
            out = random.standard_normal((M, N), np.float32)
            before = out if accumulate else np.zeros_like(out)
            expected = before.astype(np.float64) + a.astype(np.float64) @ b.astype(np.float64)
            got = blas.product(a, b, out=out, accumulate=accumulate)
            assert got is out
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * K**0.5, err_msg=f"{a_layout}, {b_layout}")


@pytest.mark.skipif(blas.library is None or not blas.library.bf16, reason="no library multiplies bfloat16 (MKL does)")
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("M", "N", "K"), [(65, 300, 129), (300, 65, 129), (64, 64, 65)])
def test_the_librarys_products_of_bfloat16_are_added_up_in_float32(M, N, K, accumulate, monkeypatch):
    """Near float64, from the same rounded numbers, as a float32 product is; not merely as bfloat16 could be."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    monkeypatch.setattr(blas, "native_bf16", True)
    monkeypatch.setattr(blas, "widened", lambda x: pytest.fail("it was widened"))
    random = np.random.default_rng(0)

    def every_layout(n, m):
        x, wide = (random.standard_normal((n, k), np.float32).astype(bfloat16) for k in (m, 2 * m))
        return [x, np.asfortranarray(x), wide[:, m:], wide[:, ::2]]

    for a in every_layout(M, K):
        for b in every_layout(K, N):
            out = random.standard_normal((M, N), np.float32)
            before = out if accumulate else np.zeros_like(out)
            expected = before.astype(np.float64) + a.astype(np.float64) @ b.astype(np.float64)
            assert blas.product(a, b, out=out, accumulate=accumulate) is out
            np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 * K**0.5)


def test_bfloat16_products_are_the_librarys_only_where_there_are_matrix_units():
    assert blas.native_bf16 == (blas.has_matrix_units() and blas.proven(2))
    assert kernels.setup("numba")["halves"].startswith("bfloat16 products in ")


@pytest.mark.parametrize(
    ("a_batch", "b_batch"), [((3, 4), (3, 4)), ((3, 1), (4,)), ((5,), ()), ((), (2, 3)), ((1,), (7,)), ((0, 2), (2,))]
)
def test_products_of_stacks_broadcast_as_numpys_do(a_batch, b_batch):
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape, np.float32) for shape in ((*a_batch, 9, 40), (*b_batch, 40, 70)))
    np.testing.assert_allclose(blas.stacked_product(a, b), a @ b, rtol=1e-5, atol=1e-4)
    turned = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    np.testing.assert_allclose(blas.stacked_product(a, turned), a @ b, rtol=1e-5, atol=1e-4)


def test_heads_between_two_other_axes_are_read_in_place():
    """(B, T, H, D) as (B, H, T, D): the matrices of a stack need not lie one after another."""
    a = np.random.default_rng(0).standard_normal((2, 50, 4, 32), np.float32).transpose(0, 2, 1, 3)
    assert blas.as_operand(a)[0] is a
    np.testing.assert_allclose(
        blas.stacked_product(a, a.swapaxes(-1, -2)), a @ a.swapaxes(-1, -2), rtol=1e-5, atol=1e-4
    )

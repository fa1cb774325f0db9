"""Kernels in Numba for float32 arrays on the CPU. Each file holds the loops for one family of ops, or of rules.

With NUMBA_DISABLE_JIT=1 there are none: as Python these loops would take minutes, and the reference is there.
"""

from autograd.backends.numba import threads

threads.start()

from autograd.backends.numba import building  # noqa: E402 (the pool is set up first)

if not building.disabled():
    building.use_whole_registers()
    from autograd.backends.numba import (  # noqa: F401
        activation,
        attention,
        dropout,
        elementwise,
        index,
        linalg,
        loss,
        norm,
        optimizer,
        relu,
        rope,
        softmax,
    )


def setup():
    """What the kernels run on here: dict of words."""
    if building.disabled():
        return {"kernels": "none, since NUMBA_DISABLE_JIT is set"}
    from autograd.backends.numba import blas, linalg

    where = building.kept_in()
    bf16 = "in matrix units" if blas.native_bf16 else "in pairs" if linalg.multiplies_pairs else "in float32"
    return {
        "threads": f"{blas.THREADS} threads (NUMBA_NUM_THREADS changes it)",
        "products": f"products by {blas.library.version()}" if blas.available else "products by NumPy, on its threads",
        "halves": f"bfloat16 products {bf16}",
        "kept": f"kept in {where}" if where else "kept nowhere; NUMBA_CACHE_DIR can name a folder to write",
    }

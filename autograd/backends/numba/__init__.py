"""Kernels in Numba for float32 arrays on the CPU. Each file holds the loops for one file of `autograd/ops`.

With NUMBA_DISABLE_JIT=1 there are none: as Python these loops would take minutes, and the reference is there.
"""

from autograd.backends.numba import threads  # noqa: F401 (before anything that loads Numba)
from autograd.backends.numba.building import disabled, use_whole_registers

if not disabled():
    use_whole_registers()
    from autograd.backends.numba import activation, attention, dropout, index, linalg, loss, norm, rope, softmax  # noqa: F401

"""How a loop becomes a kernel: compiled when it is first called, for stated types, and kept on disk.

Numba's cache notices a change of the file that a kernel stands in, not of the formulas that it copies from another. So
the folder is named after the contents of all files here: whatever changes, everything is compiled anew, once.
"""

import functools
import hashlib
import os
import tempfile
from pathlib import Path

import llvmlite.binding
import numba

from autograd.kernels import announce

FLAGS = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}
"""For the compiler: sums may be reordered and products fused, but NaN and infinity keep their meaning; a division by
zero gives infinity and no exception, whose branch would keep loops from being vectorized."""

PIECE = 8192
"""Elements of a flat array that one thread takes at a time; they stay in its cache."""

BLOCK = 64
"""Rows that are summed by one thread: fixed, so that a sum over rows does not depend on the number of threads."""


@functools.cache
def cache_folder():
    """Where compiled kernels are kept. NUMBA_CACHE_DIR, if set, is used as it is."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[2] / "arrays.py"]
    contents = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + numba.__version__.encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tinyllm" / "kernels" / contents.hexdigest()[:16]


def kept_in():
    """The folder that compiled kernels are kept in, None if it cannot be made and written."""
    folder = Path(numba.config.CACHE_DIR or cache_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


def compiled(*signatures, parallel=False):
    """A loop that is compiled when it is first called, for exactly these types and no others.

    So a first step compiles what its model needs, and nothing later compiles unnoticed for an array of another kind.
    """

    def build(body):
        @functools.cache
        def kernel():
            options = {"parallel": parallel, "nogil": True, **FLAGS}
            before = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = before or str(cache_folder())
            try:
                dispatcher = numba.njit(list(signatures), cache=True, **options)(body)
            except (OSError, RuntimeError):  # nowhere to write: compile each time
                dispatcher = numba.njit(list(signatures), **options)(body)
            finally:
                numba.config.CACHE_DIR = before
            if not dispatcher.stats.cache_hits:
                announce()
            return dispatcher

        @functools.wraps(body)
        def run(*arguments):
            return kernel()(*arguments)

        return run

    return build


inlined = numba.njit(inline="always", **FLAGS)
"""A formula that is copied into the loops that use it, which can then be vectorized."""

called = numba.njit(**FLAGS)
"""A part of a loop that is seldom needed: called and not copied, for the compiler takes longer over a larger kernel."""


def disabled():
    """Whether the user has switched Numba's compiler off."""
    return bool(numba.config.DISABLE_JIT)


def use_whole_registers():
    """Let loops use 512-bit registers where there are any; LLVM avoids them, and loses a fifth on these loops."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and not numba.config.CPU_FEATURES and not numba.config.CPU_NAME:
        numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        numba.config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"

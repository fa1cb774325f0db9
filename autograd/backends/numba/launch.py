"""How a kernel is started: a small one on this thread alone, since waking the others takes longer than its work.

On a quiet machine some microseconds longer; where another process has the core, half a millisecond.
"""

import numba

SMALL = 2**14  # elements


def launch(kernel, *arrays):
    """Run a kernel, on how many threads its first array says. Results do not depend on it."""
    if arrays[0].size > SMALL:
        kernel(*arrays)
        return
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        kernel(*arrays)
    finally:
        numba.set_num_threads(threads)

"""How a kernel is started: on as many threads as its work is worth, since waking one takes longer than a little work.

On a quiet machine waking costs some microseconds; where another process has the core, half a millisecond.
"""

import contextlib
import threading

import numba

SMALL = 2**14  # elements that one thread does alone in the time of waking another


class Pool(threading.local):
    """What this Python thread lets its kernels use. Asking Numba each time would take as long as a small kernel."""

    most = numba.config.NUMBA_NUM_THREADS
    told = None  # how many threads Numba was told to use last


pool = Pool()


def launch(kernel, *arrays, work=None):
    """Run a kernel on a thread for every SMALL elements of work, by default those of its first array.

    Results do not depend on the number of threads.
    """
    run_on(-(-(arrays[0].size if work is None else work) // SMALL), kernel, *arrays)


def run_on(threads, kernel, *arguments):
    """Run a kernel on at most so many threads of the pool."""
    threads = max(1, min(threads, pool.most))
    if threads != pool.told:
        numba.set_num_threads(threads)
        pool.told = threads
    kernel(*arguments)


@contextlib.contextmanager
def at_most(threads):
    """`with at_most(1):` kernels that this Python thread starts run on so many threads."""
    before, pool.most = pool.most, threads
    try:
        yield
    finally:
        pool.most = before

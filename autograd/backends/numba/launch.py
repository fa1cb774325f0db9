"""How a kernel is started: on as many threads as its work is worth, since waking one takes longer than a little work.

On a quiet machine waking costs some microseconds; where another process has the core, half a millisecond.
"""

import numba

SMALL = 2**14  # elements that one thread does alone in the time of waking another


def launch(kernel, *arrays, work=None):
    """Run a kernel on a thread for every SMALL elements of work, by default those of its first array.

    Results do not depend on the number of threads.
    """
    run_on(-(-(arrays[0].size if work is None else work) // SMALL), kernel, *arrays)


def run_on(threads, kernel, *arguments):
    """Run a kernel on at most so many threads of the pool."""
    everyone = numba.get_num_threads()
    if threads >= everyone:
        kernel(*arguments)
        return
    numba.set_num_threads(max(1, threads))
    try:
        kernel(*arguments)
    finally:
        numba.set_num_threads(everyone)

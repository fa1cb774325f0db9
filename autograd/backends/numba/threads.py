"""One pool of threads for kernels and matrix products: Numba's.

Numba's threads and those of a BLAS library do not know of each other. Each set spins for a while after its work, in the
hope of more; on a machine of two cores the other set then waits for a core, and small steps take up to twenty times as
long. So the library is kept to one thread (see `blas`), and how long idle threads spin is bounded here.
"""

import math
import os
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when libgomp loads: some microseconds, then a thread sleeps


def usable_cores():
    """Cores that this process may use: by its affinity, hyperthreads counted once, within a container's share."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = {siblings(cpu) for cpu in allowed}
    return max(1, min(len(cores), container_share()))


def siblings(cpu, root="/sys/devices/system/cpu"):
    """The hyperthreads of this one's core, as the system writes them down; itself where it does not."""
    path = Path(root) / f"cpu{cpu}/topology/thread_siblings_list"
    return path.read_text().strip() if path.is_file() else str(cpu)


def container_share(path="/sys/fs/cgroup/cpu.max"):
    """Cores that the system grants this container, infinite without a limit. The file says "200000 100000" for two."""
    if not Path(path).is_file():
        return math.inf
    granted, period = Path(path).read_text().split()
    return math.inf if granted == "max" else math.ceil(int(granted) / int(period))


def wanted():
    """How many threads the pool shall have: NUMBA_NUM_THREADS, else OMP_NUM_THREADS, else the usable cores."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit() and int(os.environ[name]) > 0:
            return int(os.environ[name])
    return usable_cores()


def start():
    """Tell Numba, which starts its threads with the first parallel kernel; a pool that runs already stays as it is."""
    import numba

    try:
        numba.threading_layer()
    except ValueError:  # no pool yet
        numba.config.NUMBA_NUM_THREADS = wanted()
        # OpenMP wakes its threads in 2 microseconds, TBB, which Numba would prefer, later.
        numba.config.THREADING_LAYER_PRIORITY = sorted(
            numba.config.THREADING_LAYER_PRIORITY, key=lambda layer: layer != "omp"
        )

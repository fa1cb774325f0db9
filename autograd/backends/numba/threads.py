"""One pool of threads for kernels and matrix products.

Numba's threads and those of the BLAS library do not know of each other. Each set spins for a while after its work, in
the hope of more; on a machine of two cores the other set then waits for a core, and small steps take up to twenty
times as long. How long idle threads spin is bounded here unless the user says otherwise.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when libgomp loads: some microseconds, then a thread sleeps

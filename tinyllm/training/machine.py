"""What a run was made with: enough to know which other runs must equal it bit for bit."""

import os
import platform

import numpy as np

import tinyllm
from autograd import kernels


def machine():
    """dict of versions and threads, for a run's config.json."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    threads = {name: os.environ[name] for name in variables if name in os.environ}
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "threads": threads or os.cpu_count(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "kernels": list(kernels.chosen()),
        **{f"kernels_{name}": kernels.setup(name) for name in kernels.chosen() if name != "reference"},
        "tinyllm": tinyllm.__version__,
    }

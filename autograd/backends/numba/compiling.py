"""A process that compiles kernels and keeps them, one of some that `building.workers` starts on one job.

Each takes the next kernel that no other has taken: what the waiting program wants, then what every training step needs,
and last what few models have. A kernel is taken by making a file, which only one process can be the first to do.
"""

import os
import shutil
from pathlib import Path

from autograd.backends.numba import building

ORDER = ("attention.backward", "attention.forward", "linalg", "norm", "loss", "optimizer")


def main():
    job, left = Path(os.environ[building.JOB]), dict(building.KERNELS)
    while left:
        name = min(left, key=lambda name: (not (job / f"{name} wanted").exists(), place(name)))
        kernel = left.pop(name)
        if taken(job / name):
            kernel()
            mark = building.mark_of(name)
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
    if all(building.mark_of(name).exists() for name in building.KERNELS):
        shutil.rmtree(job, ignore_errors=True)


def place(name):
    """Where a kernel stands in the order."""
    return next((i for i, start in enumerate(ORDER) if name.startswith(start)), len(ORDER))


def taken(file):
    """Whether this process is the first to make that file."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


if __name__ == "__main__":
    main()

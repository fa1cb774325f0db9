"""--device and --kernels: what a command computes on."""

import numpy as np

import autograd as ag
from autograd.arrays import to_device
from tinyllm.errors import UserError


def check_device(name):
    """UserError, before any work is done, where arrays cannot live on that device."""
    try:
        to_device(np.zeros(1, np.float32), name)
    except (ValueError, ImportError, RuntimeError) as error:  # no CuPy, a broken one, no GPU or driver
        raise UserError(f"--device {name}: {error}") from None


def chosen_kernels(name):
    """The context manager for --kernels. "auto" is the reference until the kernels cover a whole training step."""
    try:
        return ag.use_kernels("reference" if name == "auto" else name)
    except ValueError as error:
        raise UserError(f"--kernels {name}: {error}") from None

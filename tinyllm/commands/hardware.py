"""--device and --kernels: what a command computes on."""

import sys

import numpy as np

import autograd as ag
from autograd import kernels
from autograd.arrays import to_device
from tinyllm.errors import UserError


def check_device(name):
    """UserError, before any work is done, where arrays cannot live on that device."""
    try:
        to_device(np.zeros(1, np.float32), name)
    except (ValueError, ImportError, RuntimeError) as error:  # no CuPy, a broken one, no GPU or driver
        raise UserError(f"--device {name}: {error}") from None


def chosen_kernels(name, device="cpu", silent=False):
    """The context manager for --kernels. "auto": the kernels for that device, where what they need is installed.

    silent: do not say so where kernels are compiled first; of several ranks one does.
    """
    if name == "auto":
        name = "reference" if device == "cuda" else "numba"
    kernels.on_compiling(None if silent else say_so)
    try:
        return ag.use_kernels(name)
    except ValueError as error:
        raise UserError(f"--kernels {name}: {error}") from None


COMPILING = "Compiling kernels for this machine: some ten seconds, once."


def say_so():
    print(COMPILING, file=sys.stderr)

"""Ranks that `mpiexec` has started, on one machine or many: through mpi4py (the extra `mpi`).

MPI may add in whatever order its library finds quickest, and even differently from one run to the next. So it only
carries bytes here, and the sums are ours, in the order of the ranks: every rank has the same bits, and they are those
that local processes have.
"""

import atexit
import os
import sys
import time

import numpy as np

from tinyllm.errors import UserError
from tinyllm.training.parallel.communicator import PiecewiseCommunicator
from tinyllm.training.parallel.launch import THREADS, environment, print_nothing, threads_each

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which one `mpiexec` or another tells its processes how many they are."""

LOCAL_SIZES = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
"""And how many of them are on the same machine."""

PIECE = 2**24
"""Bytes of a message's pieces, which bound the memory for what others send."""


def expected(environment=os.environ):
    """How many ranks `mpiexec` has started; 1 where this process was started without it."""
    return number_in(environment, SIZES) or 1


def on_this_machine(environment=os.environ):
    """How many of them are on this machine; all, where that is not said."""
    return number_in(environment, LOCAL_SIZES) or expected(environment)


def number_in(environment, names):
    """The number in the first of these variables that holds one, or None."""
    return next((int(environment[name]) for name in names if environment.get(name, "").isdigit()), None)


def connect():
    """The MPICommunicator of all ranks that `mpiexec` has started; UserError where mpi4py is missing or another's."""
    wanted = expected()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # not there, or its library is not
        raise UserError(
            f"mpiexec has started {wanted} ranks, but mpi4py cannot be used ({error}); run: {sys.executable} -m pip "
            "install mpi4py, or use --devices without mpiexec"
        ) from None
    if MPI.COMM_WORLD.Get_size() != wanted:
        raise UserError(
            f"mpiexec has started {wanted} ranks, but mpi4py sees {MPI.COMM_WORLD.Get_size()}: it was made for another "
            "MPI than this mpiexec belongs to; use the one that belongs to it"
        )
    return MPICommunicator(MPI.COMM_WORLD)


def run(work, *arguments):
    """work(communicator, *arguments) on every rank; returns what it returned. Where it fails, all ranks end.

    Standard output is the first rank's. Kernels compute with this rank's share of the machine's cores.
    """
    communicator = connect()
    if communicator.rank:
        print_nothing()
    try:
        with environment(dict.fromkeys(THREADS, str(threads_each(on_this_machine())))):
            return work(communicator, *arguments)
    except BaseException as error:
        # When this one has said why: MPI's own end waits for ranks that wait for this one.
        atexit.register(communicator.abort, 130 if isinstance(error, KeyboardInterrupt) else 2)
        time.sleep(min(communicator.rank, 1))  # where all fail for the same reason, let the first say it
        raise


class MPICommunicator(PiecewiseCommunicator):
    """One rank of an mpi4py communicator."""

    capacity = PIECE

    def __init__(self, world):
        self.world, self.rank, self.size = world, world.Get_rank(), world.Get_size()

    def barrier(self):
        self.world.Barrier()

    def everyone(self, array):
        received = np.empty((self.size, array.size), array.dtype)
        self.world.Allgather(in_bytes(array), in_bytes(received))
        terms = list(received)
        terms[self.rank] = array
        return terms

    def swap(self, array, parts):
        mine, width = array[parts[self.rank]], array.itemsize
        received = np.empty((self.size, len(mine)), array.dtype)
        counts, starts = lengths_and_starts(parts, width)
        each, begins = [mine.nbytes] * self.size, [rank * mine.nbytes for rank in range(self.size)]
        self.world.Alltoallv([in_bytes(array), (counts, starts)], [in_bytes(received), (each, begins)])
        terms = list(received)
        terms[self.rank] = mine
        return terms

    def gather(self, array, parts):
        from mpi4py import MPI

        self.world.Allgatherv(MPI.IN_PLACE, [in_bytes(array), lengths_and_starts(parts, array.itemsize)])

    def abort(self, code):
        """End all ranks."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.world.Abort(code)


def in_bytes(array):
    return array.reshape(-1).view(np.uint8)


def lengths_and_starts(parts, width):
    """Of slices of an array, in bytes."""
    return [(part.stop - part.start) * width for part in parts], [part.start * width for part in parts]

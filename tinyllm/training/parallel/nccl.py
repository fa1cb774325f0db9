"""Ranks that have a GPU each: NCCL, through CuPy's low-level communicator.

What lies on the GPU goes from GPU to GPU; scalars, JSON and the meeting itself go over the host communicator that the
ranks have anyway, local or MPI. NCCL adds in an order of its own, a ring's or a tree's: every rank has the same bits,
since each sum is computed once and then sent, but they are not those of another communicator.
"""

import functools
import itertools
import socket

import numpy as np

from tinyllm.errors import UserError
from tinyllm.training.parallel.communicator import Communicator


def connect(host):
    """The NCCLCommunicator of all ranks of a host communicator; each takes a GPU of its machine for its own."""
    try:
        import cupy
        import cupy.cuda.nccl

        cupy.cuda.runtime.getDeviceCount()
    except (ImportError, RuntimeError) as error:  # CuPy or NCCL is not there; no driver
        raise UserError(f"several ranks with --device cuda need CuPy, NCCL and GPUs: {error}") from None
    take_a_gpu(host, cupy)
    return NCCLCommunicator(host, cupy, cupy.cuda.nccl)


def take_a_gpu(host, cupy):
    """The n-th rank of a machine computes on its n-th GPU. NCCL refuses two ranks on one, and so does this."""
    machines = host.exchange(socket.gethostname())
    ranks, gpus = machines.count(machines[host.rank]), cupy.cuda.runtime.getDeviceCount()
    if gpus < ranks:
        raise UserError(
            f"{'one GPU' if gpus == 1 else f'{gpus} GPUs'} for {'two' if ranks == 2 else ranks} ranks: NCCL takes one "
            f"process a GPU; --devices {gpus} or --device cpu"
        )
    cupy.cuda.Device(machines[: host.rank].count(machines[host.rank])).use()


class NCCLCommunicator(Communicator):
    """One rank with a GPU. Arrays of the host go over `host`, those of the GPU over NCCL.

    Messages run on a stream of their own, after what was asked of the GPU before; `begin` returns at once. A method
    that is not begun is done for the current stream when it returns: what is asked of the GPU next comes after it.
    """

    asynchronous = True

    def __init__(self, host, cupy, nccl):
        self.host, self.rank, self.size, self.cuda, self.nccl = host, host.rank, host.size, cupy.cuda, nccl
        known = host.exchange(list(nccl.get_unique_id()) if host.rank == 0 else None)[0]
        self.peers = nccl.NcclCommunicator(self.size, bytes(known), self.rank)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.sums = {np.dtype(name): getattr(nccl, f"NCCL_{name.upper()}") for name in ("float32", "float64")}

    def all_reduce(self, array):
        self.begin("all_reduce", array)()

    def reduce_scatter(self, array, cuts):
        self.begin("reduce_scatter", array, cuts)()

    def all_gather(self, array, cuts):
        self.begin("all_gather", array, cuts)()

    def broadcast(self, array, root=0):
        self.begin("broadcast", array, root)()

    def barrier(self):
        self.host.barrier()

    def exchange(self, message):
        return self.host.exchange(message)

    def begin(self, kind, array, *others):
        if isinstance(array, np.ndarray):
            getattr(self.host, kind)(array, *others)
            return lambda: None
        self.stream.wait_event(self.cuda.get_current_stream().record())
        self.nccl.groupStart()
        for ask in getattr(self, f"asks_of_{kind}")(array, *others):
            ask(self.stream.ptr)
        self.nccl.groupEnd()
        return functools.partial(self.arrive, self.stream.record(), array)

    def arrive(self, event, array):
        """What is asked of the current stream from now on comes after the event. Until then `array` must not be freed:
        its memory would be given to somebody else."""
        self.cuda.get_current_stream().wait_event(event)

    def asks_of_all_reduce(self, array):
        """The calls of NCCL, but for the stream, that make up one collective; all of them are one message."""
        at = array.data.ptr
        yield functools.partial(self.peers.allReduce, at, at, array.size, self.sum_of(array), self.nccl.NCCL_SUM)

    def asks_of_reduce_scatter(self, array, cuts):
        for root, (at, count) in enumerate(stretches_of(array, cuts)):
            if count:
                yield functools.partial(
                    self.peers.reduce, at, at, count, self.sum_of(array), self.nccl.NCCL_SUM, root
                )  # fmt: skip

    def asks_of_all_gather(self, array, cuts):
        for root, (at, count) in enumerate(stretches_of(array, cuts)):
            if count:
                num_bytes = count * array.itemsize
                yield functools.partial(self.peers.broadcast, at, at, num_bytes, self.nccl.NCCL_UINT8, root)

    def asks_of_broadcast(self, array, root=0):
        at = array.data.ptr
        yield functools.partial(self.peers.broadcast, at, at, array.nbytes, self.nccl.NCCL_UINT8, root)

    def sum_of(self, array):
        """NCCL's name of the dtype of what is summed: gradients, which are float32 or float64 in any precision."""
        if array.dtype not in self.sums:
            raise TypeError(f"NCCL sums float32 and float64 here, not {array.dtype}")
        return self.sums[array.dtype]

    def close(self):
        self.peers.destroy()
        self.host.close()


def stretches_of(array, cuts):
    """(address, count of numbers) of each rank's part of a flat array on the GPU."""
    for start, stop in itertools.pairwise(cuts):
        yield array.data.ptr + start * array.itemsize, stop - start

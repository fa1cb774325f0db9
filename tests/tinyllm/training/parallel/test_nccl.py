"""The logic of the NCCL communicator, on a stand-in for CuPy and NCCL between threads. It has not met two GPUs yet."""

import itertools
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from test_communicators import arrays_of, local, same_bits, sum_in_order, together

from tinyllm.errors import UserError
from tinyllm.training.parallel import Ranks, nccl


class DeviceArray:
    """An array on no device: like a GPU's it has an address, and is none of NumPy's."""

    addresses = itertools.count(2**40, 2**20)
    lock = threading.Lock()
    memory = {}  # noqa: RUF012 (one for all: addresses are global)

    def __init__(self, array):
        self.array, self.size, self.nbytes = array.copy(), array.size, array.nbytes
        self.dtype, self.itemsize = array.dtype, array.itemsize
        with self.lock:
            self.data = SimpleNamespace(ptr=next(self.addresses))
            self.memory[self.data.ptr] = self.array.reshape(-1).view(np.uint8)

    @classmethod
    def at(cls, address, num_bytes):
        """The bytes that begin at an address."""
        start = max(known for known in list(cls.memory) if known <= address)
        return cls.memory[start][address - start : address - start + num_bytes]


class Wire:
    """What the stand-in of NCCL does on all ranks: NumPy's sums, when every rank has asked for the same."""

    def __init__(self, size):
        self.size, self.barrier, self.asked = size, threading.Barrier(size), [None] * size

    def meet(self, rank, call, parts):
        """(the call of each rank is the same) -> the bytes of all ranks."""
        self.asked[rank] = (call, parts)
        self.barrier.wait(30)
        calls, offered = zip(*self.asked, strict=True)
        assert len(set(calls)) == 1, calls
        offered = [part.copy() for part in offered]
        self.barrier.wait(30)
        return offered


class StandIn:
    """In place of cupy.cuda.nccl, of one rank. NCCL runs what is asked between groupStart and groupEnd at the end."""

    NCCL_UINT8, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 1, 7, 8, 0
    DTYPES = {7: np.float32, 8: np.float64}  # noqa: RUF012 (a constant)

    def __init__(self, wire):
        self.wire, self.log, self.group = wire, [], None

    def get_unique_id(self):
        return bytes(range(128))

    def groupStart(self):
        assert self.group is None
        self.group = []

    def groupEnd(self):
        for run in self.group:
            run()
        self.group = None

    def NcclCommunicator(self, size, unique_id, rank):
        assert unique_id == self.get_unique_id()
        assert size == self.wire.size
        self.rank = rank
        return self

    def later(self, name, stream, run, *call):
        assert stream == "the stream of messages"
        self.log.append(name)
        self.group.append(lambda: run(name, *call))

    def allReduce(self, source, target, count, dtype, op, stream):
        assert source == target
        self.later("allReduce", stream, self.summed, source, count, dtype, op, None)

    def reduce(self, source, target, count, dtype, op, root, stream):
        assert source == target
        self.later("reduce", stream, self.summed, source, count, dtype, op, root)

    def summed(self, name, at, count, dtype, op, root):
        assert op == self.NCCL_SUM
        mine = DeviceArray.at(at, count * np.dtype(self.DTYPES[dtype]).itemsize)
        offered = self.wire.meet(self.rank, (name, count, dtype, root), mine)
        if root in (None, self.rank):
            mine[...] = sum_in_order([part.view(self.DTYPES[dtype]) for part in offered]).view(np.uint8)

    def broadcast(self, source, target, count, dtype, root, stream):
        assert (source, dtype) == (target, self.NCCL_UINT8)
        self.later("broadcast", stream, self.sent, source, count, root)

    def sent(self, name, at, count, root):
        mine = DeviceArray.at(at, count)
        mine[...] = self.wire.meet(self.rank, (name, count, root), mine)[root]

    def destroy(self):
        self.log.append("destroy")


class StandInForCuPy:
    """Streams that note in what order they were told to wait for each other."""

    def __init__(self, gpus=2):
        self.order, self.used = [], []
        self.cuda = SimpleNamespace(
            get_current_stream=lambda: SimpleNamespace(
                record=lambda: "what was asked before",
                wait_event=lambda event: self.order.append(f"computing waits for {event}"),
            ),
            Stream=lambda non_blocking: SimpleNamespace(
                ptr="the stream of messages",
                wait_event=lambda event: self.order.append(f"messages wait for {event}"),
                record=lambda: "the message",
            ),
            runtime=SimpleNamespace(getDeviceCount=lambda: gpus),
            Device=lambda index: SimpleNamespace(use=lambda: self.used.append(index)),
        )


def connected(host, wire):
    """(NCCLCommunicator, the stand-ins)"""
    cupy, stand_in = StandInForCuPy(), StandIn(wire)
    return nccl.NCCLCommunicator(host, cupy, stand_in), cupy, stand_in


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cuts", [(0, 40, 100), (0, 0, 100), (0, 100, 100)])
def test_collectives_of_the_gpu(dtype, cuts):
    arrays, wire = arrays_of(2, 100, dtype), Wire(2)
    expected = sum_in_order(arrays)

    def collectives(host):
        communicator, _, stand_in = connected(host, wire)
        mine = arrays[host.rank]
        device = [DeviceArray(mine) for _ in range(4)]
        communicator.all_reduce(device[0])
        communicator.reduce_scatter(device[1], cuts)
        communicator.all_gather(device[2], cuts)
        communicator.broadcast(device[3], 1)
        communicator.close()
        return [array.array for array in device], stand_in.log

    empty = sum(start == stop for start, stop in itertools.pairwise(cuts))
    for rank, (results, log) in enumerate(together(local(2), collectives)):
        reduced, scattered, gathered, sent = results
        part = slice(*cuts[rank : rank + 2])
        same_bits(reduced, expected)
        alone = arrays[rank].copy()
        alone[part] = expected[part]
        same_bits(scattered, alone)
        same_bits(gathered, np.concatenate([arrays[0][: cuts[1]], arrays[1][cuts[1] :]]))
        same_bits(sent, arrays[1])
        each = 2 - empty  # a rank without a part is not asked for anything
        assert log == ["allReduce", *["reduce"] * each, *["broadcast"] * each, "broadcast", "destroy"]


def test_a_message_waits_for_what_was_computed_and_is_waited_for_when_it_is_needed():
    wire = Wire(2)

    def overlapped(host):
        communicator, cupy, _ = connected(host, wire)
        ranks = Ranks(communicator)
        message = ranks.start("all_reduce", DeviceArray(np.ones(4)))
        before = list(cupy.order)
        message.wait()
        message.wait()
        assert ranks.sum(1.5) == 3.0  # over the host
        return before, cupy.order, ranks.messages[0].kind

    for before, order, kind in together(local(2), overlapped):
        assert before == ["messages wait for what was asked before"]
        assert order == [*before, "computing waits for the message"]
        assert kind == "all_reduce"


def test_only_gradients_are_summed():
    def half(host):
        with pytest.raises(TypeError, match="float32 and float64 here, not float16"):
            connected(host, Wire(2))[0].all_reduce(DeviceArray(np.ones(4, np.float16)))

    assert together(local(2), half) == [None, None]


def test_each_rank_of_a_machine_takes_a_gpu_of_its_own():
    cupys = [StandInForCuPy(gpus=2) for _ in range(2)]
    together(local(2), lambda host: nccl.take_a_gpu(host, cupys[host.rank]))
    assert [cupy.used for cupy in cupys] == [[0], [1]]


@pytest.mark.parametrize(("gpus", "ranks", "said"), [(1, 2, "one GPU for two ranks"), (2, 3, "2 GPUs for 3 ranks")])
def test_too_few_gpus_are_refused_on_every_rank(gpus, ranks, said):
    results = together(local(ranks), lambda host: nccl.take_a_gpu(host, StandInForCuPy(gpus)))
    for error in results:
        assert isinstance(error, UserError)
        assert str(error) == f"{said}: NCCL takes one process a GPU; --devices {gpus} or --device cpu"

"""Ranks as processes of one machine, which meet in shared memory.

Each rank has an area that it writes and all others read, in two halves used in turn. Between any two ranks there is a
pipe, the bell: a rank that has written rings at every other and waits until all have rung. Waiting is the kernel's
affair: no rank spins, and a rank that has ended, however, is noticed at once because its end of the pipe is closed.

The halves make one ring a piece enough: who has heard all bells for the next piece knows that the others are done with
this one, and may write over it.
"""

import ctypes
import multiprocessing
import struct
from dataclasses import dataclass

import numpy as np

from tinyllm.training.parallel.communicator import LostRank, PiecewiseCommunicator

PIECE = 2**20
"""Bytes of a half. Larger messages go in pieces: those stay in the processor's cache on their way."""

NOTE = struct.Struct("=BQ")
"""What a bell says: what its rank is doing, and with how many bytes."""

KINDS = ("barrier", "everyone", "swap", "gather")


@dataclass
class Seat:
    """What one rank needs to meet the others; a process is started with it.

    areas: the shared memory of every rank. bells: dict rank -> its end of the pipe to that rank.
    """

    rank: int
    areas: list
    bells: dict


def seats(size, capacity=PIECE, context=None):
    """A Seat for each of so many ranks. context: of multiprocessing, by which the ranks' processes will be started.

    The memory has no name: the system frees it when the last process that has it ends, in whatever way.
    """
    context = context or multiprocessing.get_context("spawn")
    areas = [context.RawArray(ctypes.c_ubyte, 2 * capacity) for _ in range(size)]
    made = [Seat(rank, areas, {}) for rank in range(size)]
    for one in range(size):
        for other in range(one):
            made[one].bells[other], made[other].bells[one] = context.Pipe()
    return made


def leave(seat):
    """Close this process's ends of a rank's pipes: the others are told that it is gone when no process has them."""
    for bell in seat.bells.values():
        bell.close()


class LocalCommunicator(PiecewiseCommunicator):
    """One rank among the processes of a machine.

    Raises LostRank where another has ended, and RuntimeError where the ranks do not do the same.
    """

    def __init__(self, seat):
        self.seat, self.rank, self.size = seat, seat.rank, len(seat.areas)
        self.halves = [np.frombuffer(area, np.uint8).reshape(2, -1) for area in seat.areas]
        self.capacity = self.halves[0].shape[1]
        self.turn = 0

    def barrier(self):
        self.ring("barrier", 0)

    def everyone(self, array):
        boxes = self.boxes(array.dtype, array.size)
        boxes[self.rank][...] = array
        self.ring("everyone", array.nbytes)
        # Copies: all ranks read these boxes, and the sum is made in place.
        return [array if rank == self.rank else box.copy() for rank, box in enumerate(boxes)]

    def swap(self, array, parts):
        # Box r of a rank's area holds what rank r is to have.
        longest = max(part.stop - part.start for part in parts)
        boxes = [box.reshape(self.size, longest) for box in self.boxes(array.dtype, self.size * longest)]
        for rank in others_than(self.rank, self.size):
            boxes[self.rank][rank, : parts[rank].stop - parts[rank].start] = array[parts[rank]]
        self.ring("swap", longest * array.itemsize)
        mine = array[parts[self.rank]]
        return [mine if rank == self.rank else box[self.rank, : len(mine)] for rank, box in enumerate(boxes)]

    def gather(self, array, parts):
        longest = max(part.stop - part.start for part in parts)
        boxes = self.boxes(array.dtype, longest)
        mine = array[parts[self.rank]]
        boxes[self.rank][: len(mine)] = mine
        self.ring("gather", longest * array.itemsize)
        for rank in others_than(self.rank, self.size):
            theirs = array[parts[rank]]
            theirs[...] = boxes[rank][: len(theirs)]

    def boxes(self, dtype, count):
        """The halves whose turn it is, one of each rank, as arrays of so many numbers."""
        self.turn = 1 - self.turn
        return [halves[self.turn, : count * dtype.itemsize].view(dtype) for halves in self.halves]

    def ring(self, kind, num_bytes):
        """Tell the others what this rank has written, and return when all have told the same."""
        note, others = NOTE.pack(KINDS.index(kind), num_bytes), others_than(self.rank, self.size)
        heard = []
        try:
            for rank in others:
                self.seat.bells[rank].send_bytes(note)
            for rank in others:
                heard.append(self.seat.bells[rank].recv_bytes())
        except (EOFError, OSError):
            raise LostRank(f"rank {rank} has ended before rank {self.rank}; what ended it is said there") from None
        for rank, theirs in zip(others, heard, strict=True):
            if theirs != note:
                theirs, count = NOTE.unpack(theirs)
                raise RuntimeError(
                    f"rank {self.rank} is at {kind} of {num_bytes} bytes and rank {rank} at {KINDS[theirs]} of "
                    f"{count}: all ranks must send the same messages in the same order"
                )

    def close(self):
        leave(self.seat)


def others_than(rank, size):
    """All ranks but one, from the next on: so that not all of them go to the same one first."""
    return [(rank + step) % size for step in range(1, size)]

"""The ranks of a run: a communicator whose messages go out one after the other, and are recorded."""

import dataclasses
import time

import numpy as np

from tinyllm.training.parallel.communicator import Communicator, Single


@dataclasses.dataclass
class Message:
    """One collective of this rank. started, ended: seconds of time.perf_counter(); num_bytes: of the whole array."""

    kind: str
    num_bytes: int
    started: float
    ended: float = 0.0

    def wait(self):
        """Until its array holds the result."""


class Ranks(Communicator):
    """A communicator with a record of its messages. All that a run says to other ranks goes through one of these.

    `start` sends a message that may go on beside the computation; the other methods return when theirs is done.
    """

    def __init__(self, communicator=None):
        self.communicator = communicator or Single()
        self.rank, self.size = self.communicator.rank, self.communicator.size
        self.messages = []

    @property
    def first(self):
        """Is this the rank that writes and prints?"""
        return self.rank == 0

    def start(self, kind, array, *others):
        """Send a message of that kind (the name of a collective) and return it; its `wait` returns when it is done."""
        message = Message(kind, array.nbytes, time.perf_counter())
        getattr(self.communicator, kind)(array, *others)
        message.ended = time.perf_counter()
        self.messages.append(message)
        return message

    def all_reduce(self, array):
        self.start("all_reduce", array).wait()

    def reduce_scatter(self, array, cuts):
        self.start("reduce_scatter", array, cuts).wait()

    def all_gather(self, array, cuts):
        self.start("all_gather", array, cuts).wait()

    def broadcast(self, array, root=0):
        self.start("broadcast", array, root).wait()

    def barrier(self):
        self.communicator.barrier()

    def exchange(self, message):
        return self.communicator.exchange(message)

    def close(self):
        self.communicator.close()

    def sum(self, number):
        """The sum of all ranks' numbers, on every rank the same bits; the number itself where there is one rank."""
        if self.size == 1:
            return number
        total = np.array([number], np.float64)
        self.communicator.all_reduce(total)
        return total.item()

    def share(self, count):
        """Which of `count` samples are this rank's: an equal run of them, as a slice."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

"""What processes that train one model together can say to each other: seven collectives, and nobody there but oneself.

Each process is a rank, numbered from 0. All ranks call the same methods in the same order with arrays of the same size
and dtype. Arrays are contiguous and are changed in place. Sums are taken in the order of the ranks, so that every rank
has the same bits.
"""

import itertools
import json

import numpy as np

from tinyllm.errors import UserError

SMALL = 2**14
"""Up to so many bytes everybody sends everything to all, and each sums for itself: one message instead of two."""


class LostRank(UserError):
    """Another rank is not there any more. What ended it is known to that rank, or to whoever started it."""


class Communicator:
    """The interface. rank: which of `size` processes this is.

    asynchronous: whether `begin` returns before a message has arrived.
    """

    rank, size = 0, 1
    asynchronous = False

    def all_reduce(self, array):
        """array <- the sum of all ranks' arrays, on every rank."""
        raise NotImplementedError

    def reduce_scatter(self, array, cuts):
        """Each rank's own part of a flat array <- the sum of all ranks'; the other parts stay as they are.

        cuts: size + 1 rising indices; the part of rank r is array[cuts[r]:cuts[r + 1]]. Parts may be empty.
        """
        raise NotImplementedError

    def all_gather(self, array, cuts):
        """Each other rank's part of a flat array <- what that rank has there."""
        raise NotImplementedError

    def broadcast(self, array, root=0):
        """array <- the array of rank `root`, on every rank."""
        raise NotImplementedError

    def barrier(self):
        """Return when every rank has called it."""
        raise NotImplementedError

    def exchange(self, message):
        """The list of all ranks' messages, in their order. A message is of JSON's types."""
        text = np.frombuffer(json.dumps(message).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(text)
        self.all_gather(lengths, tuple(range(self.size + 1)))
        cuts = (0, *itertools.accumulate(lengths.tolist()))
        texts = np.empty(cuts[-1], np.uint8)
        texts[slice(*cuts[self.rank : self.rank + 2])] = text
        self.all_gather(texts, cuts)
        return [json.loads(texts[start:stop].tobytes()) for start, stop in itertools.pairwise(cuts)]

    def begin(self, kind, array, *others):
        """For an asynchronous communicator: start the collective of that name; returns a function that waits for it."""
        raise NotImplementedError

    def close(self):
        """Let go of what the ranks share; the others need not have come as far."""


class Single(Communicator):
    """One process alone: what it says to itself."""

    def all_reduce(self, array):
        pass

    def reduce_scatter(self, array, cuts):
        pass

    def all_gather(self, array, cuts):
        pass

    def broadcast(self, array, root=0):
        pass

    def barrier(self):
        pass

    def exchange(self, message):
        return [message]


class PiecewiseCommunicator(Communicator):
    """Collectives out of three steps that a way of sending provides, each for pieces of `capacity` bytes at most.

    So the sums are the same to the last bit whatever carries the bytes: ((a₀ + a₁) + a₂) + … for each number.
    """

    capacity = 2**20

    def everyone(self, array):
        """[array of rank 0, of rank 1, …]; the own one may be the array itself."""
        raise NotImplementedError

    def swap(self, array, parts):
        """[array[parts[self.rank]] of rank 0, of rank 1, …]; the own one is a view. Together they fit the capacity."""
        raise NotImplementedError

    def gather(self, array, parts):
        """array[parts[r]] <- that of rank r, for all r. Each fits the capacity."""
        raise NotImplementedError

    def all_reduce(self, array):
        flat = array.reshape(-1)
        if flat.nbytes <= min(SMALL, self.capacity):
            sum_in_order(self.everyone(flat), self.rank)
            return
        each = -(-flat.size // self.size)
        cuts = tuple(min(rank * each, flat.size) for rank in range(self.size + 1))
        self.reduce_scatter(flat, cuts)
        self.all_gather(flat, cuts)

    def reduce_scatter(self, array, cuts):
        for parts in stretches(cuts, self.capacity // (self.size * array.itemsize)):
            sum_in_order(self.swap(array, parts), self.rank)

    def all_gather(self, array, cuts):
        for parts in stretches(cuts, self.capacity // array.itemsize):
            self.gather(array, parts)

    def broadcast(self, array, root=0):
        flat = array.reshape(-1)
        self.all_gather(flat, (0,) * (root + 1) + (flat.size,) * (self.size - root))


def stretches(cuts, length):
    """The parts of a flat array, a stretch of at most `length` of each at a time: yields lists of one slice a rank."""
    parts = list(itertools.pairwise(cuts))
    for begin in range(0, max(stop - start for start, stop in parts), length):
        yield [slice(min(start + begin, stop), min(start + begin + length, stop)) for start, stop in parts]


def sum_in_order(terms, mine):
    """terms[mine] <- ((t₀ + t₁) + t₂) + …; the other arrays may be written over."""
    total = terms[0]
    for rank, term in enumerate(terms[1:], 1):
        into = terms[mine] if rank >= mine else total
        np.add(total, term, out=into)
        total = into

"""What processes that train one model together can say to each other: seven collectives, and nobody there but oneself.

Each process is a rank, numbered from 0. All ranks call the same methods in the same order with arrays of the same size
and dtype. Arrays are contiguous and are changed in place. Sums are taken in the order of the ranks, so that every rank
has the same bits.
"""


class Communicator:
    """The interface. rank: which of `size` processes this is."""

    rank, size = 0, 1

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

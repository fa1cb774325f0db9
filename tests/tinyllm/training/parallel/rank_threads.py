"""Ranks as threads of one process: the everyday test of what many processes do, without starting any."""

import threading
import time

from tinyllm.training.parallel import Communicator, Ranks
from tinyllm.training.parallel.ranks import Message

SECONDS = 60
"""A rank that waits so long for the others waits in vain."""


class Meeting:
    """What the threads share."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=SECONDS)
        self.offered = [None] * size


class ThreadCommunicator(Communicator):
    """One of `size` threads. A thread that fails breaks the barrier, and no other waits for it."""

    def __init__(self, rank, size, meeting):
        self.rank, self.size, self.meeting = rank, size, meeting

    def offers(self, what):
        """What all ranks offer, in their order; a barrier before they may change it."""
        self.meeting.offered[self.rank] = what
        self.meeting.barrier.wait()
        offered = list(self.meeting.offered)
        self.meeting.barrier.wait()
        self.meeting.offered[self.rank] = None  # let go of it
        return offered

    def all_reduce(self, array):
        array[...] = sum_in_order(self.offers(array.copy()))

    def reduce_scatter(self, array, cuts):
        mine = slice(*cuts[self.rank : self.rank + 2])
        array[mine] = sum_in_order([other[mine] for other in self.offers(array.copy())])

    def all_gather(self, array, cuts):
        for rank, other in enumerate(self.offers(array.copy())):
            array[cuts[rank] : cuts[rank + 1]] = other[cuts[rank] : cuts[rank + 1]]

    def broadcast(self, array, root=0):
        array[...] = self.offers(array.copy())[root]

    def barrier(self):
        self.meeting.barrier.wait()

    def exchange(self, message):
        return self.offers(message)


def sum_in_order(arrays):
    total = arrays[0].copy()
    for array in arrays[1:]:
        total += array
    return total


class LateRanks(Ranks):
    """Messages do nothing before somebody waits for them: who reads too early, or writes too late, shows."""

    def __init__(self, communicator):
        super().__init__(communicator)
        self.waiting = []

    def start(self, kind, array, *others):
        message = LateMessage(kind, array.nbytes, time.perf_counter())
        message.ranks, message.send = self, lambda: getattr(self.communicator, kind)(array, *others)
        self.waiting.append(message)
        self.messages.append(message)
        return message

    def send_next(self):
        message = self.waiting.pop(0)
        message.send()
        message.send, message.ended = None, time.perf_counter()

    def send_all(self):
        while self.waiting:
            self.send_next()

    def barrier(self):
        self.send_all()
        super().barrier()

    def exchange(self, message):
        self.send_all()
        return super().exchange(message)

    def sum(self, number):
        self.send_all()
        return super().sum(number)


class LateMessage(Message):
    def wait(self):
        while not self.ended:
            self.ranks.send_next()


def on_ranks(size, function, ranks=Ranks):
    """[function(ranks) of rank 0, of rank 1, …], each in a thread with its Ranks; the first error is raised here."""
    meeting, results, errors, left_alone = Meeting(size), [None] * size, [], []

    def run(rank):
        try:
            results[rank] = function(ranks(ThreadCommunicator(rank, size, meeting)))
        except threading.BrokenBarrierError:
            left_alone.append(rank)  # another rank failed, or has other things to say
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert not left_alone, f"ranks {left_alone} waited in vain: the ranks are not in step"
    return results

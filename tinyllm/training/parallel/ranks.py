"""The ranks of a run: a communicator whose messages go out one after the other, and are recorded."""

import dataclasses
import queue
import threading
import time

import numpy as np

from tinyllm.training.parallel.communicator import Communicator, LostRank, Single

BACKWARD_BEGINS, BACKWARD_ENDS = MARKS = ("backward begins", "backward ends")
"""What a store marks among its messages."""

KEPT = 10_000
"""How many messages `Ranks.messages` keeps at least; a long run must not fill the memory with them."""


@dataclasses.dataclass
class Message:
    """One collective of this rank. started, ended: seconds of time.perf_counter(), from when it was this message's turn
    to when its array held the result; num_bytes: of the whole array.

    waited: seconds that the computation stood still for it.
    """

    kind: str
    num_bytes: int
    started: float = 0.0
    ended: float = 0.0
    waited: float = 0.0

    def wait(self):
        """Until its array holds the result. Raises what went wrong with it."""


class Sent(Message):
    """A message that is on its way, or was. send() does the work; what it returns becomes `result`."""

    def __init__(self, kind, num_bytes, send, timeout=None):
        super().__init__(kind, num_bytes)
        self.send, self.timeout = send, timeout
        self.arrived, self.error, self.result = threading.Event(), None, None

    def go(self):
        """Its turn has come."""
        self.started = time.perf_counter()
        try:
            self.result = self.send()
        except BaseException as error:
            self.error = error
        self.send = None  # and with it the array
        self.ended = time.perf_counter()
        self.arrived.set()

    def wait(self):
        if not self.arrived.is_set():
            begun = time.perf_counter()
            if not self.arrived.wait(self.timeout):
                raise LostRank(
                    f"no answer from the other ranks to {self.kind} for {self.timeout:g} s: one of them hangs, was "
                    "stopped or has more to do; --parallel.timeout sets how long to wait"
                )
            self.waited += time.perf_counter() - begun
        if self.error:
            raise self.error


class Begun(Message):
    """A message of an asynchronous communicator, which sends beside the computation by itself. arrive() waits for it.

    ended is when it was waited for: when it arrived only the device knows.
    """

    def __init__(self, kind, num_bytes, arrive):
        super().__init__(kind, num_bytes, time.perf_counter())
        self.arrive = arrive

    def wait(self):
        if not self.ended:
            begun = time.perf_counter()
            self.arrive()
            self.ended = time.perf_counter()
            self.waited += self.ended - begun


class Ranks(Communicator):
    """A communicator with a record of its messages. All that a run says to other ranks goes through one of these.

    `start` sends a message that may go on beside the computation; the other methods return when theirs is done.

    overlap: whether messages are sent by a thread of their own, one after the other in the order in which they were
    started; else in the caller, which waits. timeout: seconds after which a rank that waits gives up; None where the
    communicator or whoever started the ranks sees to that.
    """

    def __init__(self, communicator=None, overlap=True, timeout=None):
        self.communicator = communicator or Single()
        self.rank, self.size = self.communicator.rank, self.communicator.size
        self.overlap, self.timeout = overlap, timeout
        self.messages = []
        self.waited_besides = 0.0
        """Seconds that the computation stood still for what is not recorded: sums of numbers, exchanges, barriers."""
        self.last = None
        self.queue = self.thread = None

    @property
    def first(self):
        """Is this the rank that writes and prints?"""
        return self.rank == 0

    def start(self, kind, array, *others):
        """Send a message of that kind (the name of a collective) and return it; its `wait` returns when it is done.

        Until then the array is the message's: neither read nor write it.
        """
        if self.communicator.asynchronous:
            message = Begun(kind, array.nbytes, self.communicator.begin(kind, array, *others))
            self.record(message)
            if not self.overlap:
                message.wait()
            return message
        collective = getattr(self.communicator, kind)
        return self.send(Sent(kind, array.nbytes, lambda: collective(array, *others), self.timeout), self.overlap, True)

    def send(self, message, beside=False, recorded=False):
        """Let a message go when those before it have gone; unless it may go `beside` the computation, wait for it."""
        if recorded:
            self.record(message)
        # Nothing is under way: without a second thread it is quicker.
        idle = self.last is None or self.last.arrived.is_set()
        if self.size == 1 or (idle and not beside and self.timeout is None):
            message.go()
            message.waited = message.ended - message.started
        else:
            self.hand_over(message)
        self.last = message
        if not beside:
            message.wait()
        if not recorded:
            self.waited_besides += message.waited
        return message

    def hand_over(self, message):
        """To the thread that sends, which is made with the first message."""
        if self.thread is None:
            self.queue = queue.SimpleQueue()
            self.thread = threading.Thread(target=send_all, args=(self.queue,), name="messages", daemon=True)
            self.thread.start()
        self.queue.put(message)

    def record(self, message):
        self.messages.append(message)
        if len(self.messages) > 2 * KEPT:
            del self.messages[:-KEPT]

    def mark(self, event):
        """Record among the messages that something happened now."""
        now = time.perf_counter()
        self.record(Message(event, 0, now, now))

    def all_reduce(self, array):
        self.start("all_reduce", array).wait()

    def reduce_scatter(self, array, cuts):
        self.start("reduce_scatter", array, cuts).wait()

    def all_gather(self, array, cuts):
        self.start("all_gather", array, cuts).wait()

    def broadcast(self, array, root=0):
        self.start("broadcast", array, root).wait()

    def barrier(self):
        self.send(Sent("barrier", 0, self.communicator.barrier, self.timeout))

    def exchange(self, message):
        return self.send(Sent("exchange", 0, lambda: self.communicator.exchange(message), self.timeout)).result

    def close(self):
        if self.thread:
            self.queue.put(None)
        self.communicator.close()

    def sum(self, number):
        """The sum of all ranks' numbers, on every rank the same bits; the number itself where there is one rank."""
        if self.size == 1:
            return number
        total = np.array([number], np.float64)
        self.send(Sent("all_reduce", total.nbytes, lambda: self.communicator.all_reduce(total), self.timeout))
        return total.item()

    def share(self, count):
        """Which of `count` samples are this rank's: an equal run of them, as a slice."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)


def send_all(messages):
    """What the thread does: send what comes out of a queue, up to a None.

    After a message that failed no other is sent: the ranks are no longer in step.
    """
    failed = None
    with np.errstate(all="ignore"):  # what overflows is said once, by the loop
        while message := messages.get():
            if failed:
                message.send = failing_with(failed)
            message.go()
            failed = message.error


def failing_with(error):
    def send():
        raise error

    return send

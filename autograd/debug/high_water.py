"""The most memory in use while ops run, from the allocator itself."""

import contextlib
import weakref

from autograd.arrays import allocations
from autograd.debug.saved import buffer_of
from autograd.engine import Tensor, layer


class Moment:
    """The time in which one op runs forward or backward. most: bytes in use at its highest."""

    __slots__ = ("most", "op", "path", "phase")

    def __init__(self, phase, op, path):
        self.phase, self.op, self.path = phase, op, path
        self.most = 0

    def __str__(self):
        return f"{self.phase} of {self.op}{layer(self.path)}"


class HighWater:
    """Counts from the first op on, without new gradients of leaves, and without its own and its user's notes.

    peak: bytes. where: in which op. transients: for each (phase, op, path) the most that was in use and not kept.
    gradients: bytes of arrays made for leaves that own no buffer, at their most.
    """

    def __init__(self):
        self.peak = self.gradients = self.own = 0
        self.where = ""
        self.transients = {}
        self.running, self.newest, self.unsettled = [], None, None
        self.expected, self.new = [], {}  # leaves that may get a gradient now; those gradients by id, while they live
        self.memory, self.open = None, contextlib.ExitStack()

    def start(self, *arrays):
        """Begin to measure the memory in which such arrays live, if that has not begun."""
        if self.memory is None:
            self.memory = self.open.enter_context(allocations(*arrays))
            self.baseline = self.memory.used()

    def begin(self, phase, op, path, arrays):
        """An op starts, perhaps inside another: `recompute` runs ops in its pullback."""
        self.start(*arrays)
        self.look()
        self.running.append(Moment(phase, op, path))

    def end(self):
        """It has ended."""
        self.look()
        moment = self.running.pop()
        if not self.running:
            self.newest = self.unsettled = moment

    def settle(self, kept):
        """It is known how much is kept with what the last op saved; the rest of what was in use was transient."""
        moment, self.unsettled = self.unsettled, None
        if moment is not None:
            key = moment.phase, moment.op, moment.path
            self.transients[key] = max(self.transients.get(key, 0), moment.most - kept)

    def look(self):
        """Give the highest use since the last look to the ops that are running, or to the time after the newest."""
        most = self.memory.peak() - self.baseline - self.own - self.count_gradients()
        for moment in self.running:
            moment.most = max(moment.most, most)
        if most <= self.peak:
            return
        if self.running:
            outer, inner = self.running[0], self.running[-1]
            self.where = f"in {outer}" + (f", there in {inner}" if inner is not outer else "")
        elif (
            self.newest is not None and most > 1.01 * self.peak
        ):  # more than the few objects that Python makes between ops
            self.where = f"after {self.newest}"
        self.peak = most

    def expect(self, parents):
        """Leaves among these without gradient and buffer are about to have a new gradient."""
        self.expected += [
            weakref.ref(p) for p in parents if isinstance(p, Tensor) and p.grad is None and p.buffer is None
        ]

    def count_gradients(self):
        """Bytes of gradients that leaves own by now."""
        waiting = []
        for reference in self.expected:
            leaf = reference()
            if leaf is not None and leaf.grad is None:
                waiting.append(reference)
            elif leaf is not None:
                owner = buffer_of(leaf.grad)
                key = id(owner)
                self.new[key] = weakref.ref(owner, lambda _, key=key: self.new.pop(key, None)), owner.nbytes
        self.expected = waiting
        total = sum(nbytes for _, nbytes in self.new.values())
        self.gradients = max(self.gradients, total)
        return total

    @contextlib.contextmanager
    def unseen(self):
        """What is allocated inside is a note about the run and not part of it."""
        before = self.memory.used()
        yield
        self.own += self.memory.used() - before

    def close(self):
        """The block has ended."""
        if self.memory is not None:
            self.look()
        self.open.close()
        self.expected, self.new = [], {}

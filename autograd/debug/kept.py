"""What the recorded ops of a graph keep alive, in bytes: each buffer once, however many views and ops share it."""

import collections
import weakref

from autograd.debug.saved import buffer_of, saved
from autograd.engine import describe


class Buffer:
    """One piece of memory. outside: no op that was watched made it (a weight, a batch)."""

    __slots__ = ("alive", "holders", "nbytes", "outside")

    def __init__(self, nbytes, outside, alive):
        self.nbytes, self.outside, self.alive = nbytes, outside, alive
        self.holders = 0  # how many recorded ops hold it


class Entry:
    """One recorded op and what it saved: (name, `float32[2, 3]`, the Buffer it lies in) of each array."""

    __slots__ = ("op", "path", "saved")

    def __init__(self, op, path, arrays):
        self.op, self.path, self.saved = op, path, arrays


class Kept:
    """Follows nodes and buffers by weak references: nothing lives longer for being counted.

    now: bytes that nodes hold which backward has not reached. most: the largest that ever was. entries(): what was held
    then. What dies is noted at once and taken out by the next call.
    """

    def __init__(self):
        self.now = self.most = 0
        self.buffers = {}  # id of the owning array -> Buffer, while it lives: afterwards the id may be another's
        self.nodes = {}  # id of a node -> (weak reference, Entry), until its pullback ran or it is gone
        self.dead_buffers, self.dead_nodes = collections.deque(), collections.deque()  # weak references, by key
        self.at_most, self.grown = [], False

    def meet(self, values, outside):
        """Arrays come by: those never seen are entered. outside: no op made them."""
        while self.dead_nodes:
            self.release(self.dead_nodes.pop().key)
        while self.dead_buffers:
            del self.buffers[self.dead_buffers.pop().key]
        for x in values:
            self.buffer(x, outside)

    def buffer(self, array, outside):
        """The Buffer that an array lies in. None for what is not an array."""
        owner = buffer_of(array)
        if not hasattr(owner, "nbytes") or not type(owner).__weakrefoffset__:  # NumPy's scalars cannot be followed
            return None
        key = id(owner)
        if key not in self.buffers:
            self.buffers[key] = Buffer(owner.nbytes, outside, weakref.KeyedRef(owner, self.dead_buffers.append, key))
        return self.buffers[key]

    def keep(self, node):
        """A node was made: what it holds is kept from now on. Its inputs and its result have been met."""
        arrays = [(name, described(x), self.buffer(x, outside=False)) for name, x in saved(node)]
        arrays = [part for part in arrays if part[2] is not None]
        key = id(node)
        alive = weakref.KeyedRef(node, self.dead_nodes.append, key)
        self.nodes[key] = alive, Entry(node.name, node.path, arrays)
        for _, _, buffer in arrays:
            if not buffer.holders and not buffer.outside:
                self.now += buffer.nbytes
            buffer.holders += 1
        if self.now >= self.most:
            self.most, self.grown = self.now, True

    def release(self, key):
        """A node ran its pullback or is gone: what it alone held is kept no more."""
        if key not in self.nodes:
            return
        self.take_down()
        _, entry = self.nodes.pop(key)
        for _, _, buffer in entry.saved:
            buffer.holders -= 1
            if not buffer.holders and not buffer.outside:
                self.now -= buffer.nbytes

    def take_down(self):
        """Before something is released: if there was never more than now, this is what to show."""
        if self.grown:
            self.at_most, self.grown = [entry for _, entry in self.nodes.values()], False

    def entries(self):
        """The recorded ops at the moment when the most was kept, in the order in which they ran."""
        self.take_down()
        return self.at_most

    def forget(self):
        """Follow nothing any longer; what was found stays."""
        self.meet((), outside=False)
        self.take_down()
        self.nodes.clear()
        self.buffers.clear()


def described(array):
    """`float32[2, 3]`; and a part says what whole it keeps: `float32[2, 3] of float32[1000, 3]`."""
    owner = buffer_of(array)
    part = owner is not array and array.nbytes < owner.nbytes
    return f"{describe(array)} of {describe(owner)}" if part else describe(array)

"""How much memory arrays take that come and go within a step."""

import threading
import weakref

from autograd.arrays import xp_of


class Borrowed:
    """A meter of the flat arrays that it makes: bytes of those that live, and the most there ever were (peak).

    An array lives until the last view of it is gone, wherever that is: in a message, or in the graph of a loss.
    """

    def __init__(self):
        self.bytes = self.peak = 0
        self.lock = threading.RLock()  # the last to let go may be the thread that sends

    def zeros(self, size, like):
        """A flat array of zeros, of the kind and dtype of `like`."""
        return self.counted(xp_of(like).zeros(size, like.dtype))

    def empty(self, size, like):
        return self.counted(xp_of(like).empty(size, like.dtype))

    def counted(self, array):
        self.change(array.nbytes)
        weakref.finalize(array, self.change, -array.nbytes).atexit = False
        return array

    def change(self, num_bytes):
        with self.lock:
            self.bytes += num_bytes
            self.peak = max(self.peak, self.bytes)

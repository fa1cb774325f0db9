"""Stage 2 of ZeRO: of the gradient, too, every rank keeps its own part only.

While backward runs, gradients lie in buckets that are made when the first gradient for them arrives, summed over the
ranks when the last has, and let go.
"""

import functools

from autograd.arrays import zeros_from_a_line
from tinyllm.training.parallel.borrowed import Borrowed
from tinyllm.training.parallel.partition import counted_from, overlap
from tinyllm.training.parallel.shared_store import SharedStore

MOST_UNDER_WAY = 2
"""So many buckets may be on their way before backward waits for the first: what bounds the memory they take."""


class PartedGradients(SharedStore):
    """gradients: this rank's part of the flat array, the sum over ranks and over the pieces of a batch so far.

    A piece of a batch is summed over ranks when it is computed, for there is no place to keep the pieces' sum. So the
    order of a sum is another than at stages 0 and 1 where a batch has several pieces, and the same where it has one.

    borrowed: the meter of the buckets.
    """

    def hold_gradients(self, like):
        self.gradients = zeros_from_a_line(self.mine.stop - self.mine.start, like)
        self.borrowed, self.opened, self.sent = Borrowed(), {}, set()
        self.summed_before = False
        """Whether `gradients` holds an earlier piece of this batch."""
        for name, p in self.parameters.items():
            p.buffer, p.grad = functools.partial(self.supply, name), None

    @property
    def own_gradients(self):
        return self.gradients

    def supply(self, name):
        """The buffer of a parameter, in a bucket that is made for the first that asks for it."""
        bucket = self.bucket_of[self.parameters[name]]
        if bucket in self.sent:
            raise RuntimeError(f"a gradient of {name} arrived after its bucket was sent")
        if bucket not in self.opened:
            array = self.borrowed.zeros(bucket.size, self.gradients)
            self.opened[bucket] = array, {inside: self.view_in(bucket, inside, array) for inside in bucket.names}
        return self.opened[bucket][1][name]

    def view_in(self, bucket, name, array):
        return self.place_at(name, self.places[name].start - bucket.where.start).view(array)

    def backward(self, loss, seed, last=True):
        """Add the gradient of a loss, summed over all ranks."""
        super().backward(loss, seed)
        self.summed_before = True

    def backward_and_send(self, loss, seed):
        self.opened.clear()
        self.sent.clear()
        super().backward_and_send(loss, seed)

    def send(self, bucket):
        """Start to sum a bucket over the ranks. Its array lives until that is done."""
        if bucket in self.opened:
            array, _ = self.opened.pop(bucket)
        else:  # none of its parameters got a gradient
            array = self.borrowed.zeros(bucket.size, self.gradients)
        self.sent.add(bucket)
        for name in bucket.names:
            self.parameters[name].grad = None
        self.under_way.append((bucket, array, self.sum_over_ranks(array, bucket.where.start)))
        while len(self.under_way) > MOST_UNDER_WAY:
            self.take_in(*self.under_way.popleft())

    def finish(self):
        while self.under_way:
            self.take_in(*self.under_way.popleft())

    def take_in(self, bucket, array, messages):
        """Wait for the sum of a bucket, and add what of it is this rank's."""
        for message in messages:
            message.wait()
        common = overlap(bucket.where, self.mine)
        own = self.gradients[counted_from(self.mine.start, common)]
        sums = array[counted_from(bucket.where.start, common)]
        if self.summed_before:
            own += sums
        else:
            own[...] = sums

    def collect(self, names=None):
        """The gradient is whole already; what remains is to see that the views of the weights stand."""
        for name in self.parameters if names is None else names:
            self.check_bound(name)

    def zero(self):
        super().zero()
        self.summed_before = False

"""The store of parameters that several ranks share: data parallel training, and stages 0 and 1 of ZeRO.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models". Stages 2 and 3 are in
`parted_gradients.py` and `parted_weights.py`.
"""

import collections
import contextlib
import math

from tinyllm.training.parallel.buckets import Sending, make_buckets
from tinyllm.training.parallel.partition import Part, cuts_between, equal_cuts
from tinyllm.training.parallel.ranks import BACKWARD_BEGINS, BACKWARD_ENDS
from tinyllm.training.parameter_store import ParameterStore, sum_of_squares


class SharedStore(ParameterStore):
    """Every rank computes the gradient of its share of a batch; the sum over ranks is the gradient of the batch.

    parallel: a ParallelConfig. whole_parameters: for optimizers that look at a matrix as a whole, parts end where
    parameters end.

    cuts: where the parts of the ranks begin and end. mine: the slice that is this rank's. part: this rank's Part, what
    its optimizer updates; from stage 1 on nobody else does, else the whole.
    """

    def __init__(self, parameters, groups, parallel, ranks, whole_parameters=False):
        self.parallel, self.ranks, self.whole_parameters = parallel, ranks, whole_parameters
        super().__init__(parameters, groups)
        self.buckets = make_buckets(self, parallel.reduce_bucket)
        self.bucket_of = {self.parameters[name]: bucket for bucket in self.buckets for name in bucket.names}
        self.exchanging = True
        self.under_way = collections.deque()
        """What `send` has started and `finish` waits for."""
        if parallel.zero:
            self.own = Part(self, self.mine, self.own_values, self.own_gradients)
        else:
            self.own = Part(self, slice(0, self.size), self.values, self.gradients)

    def lay_out(self, groups):
        super().lay_out(groups)
        sizes = (self.places, self.size) if self.whole_parameters else (self.size,)
        self.cuts = (cuts_between if self.whole_parameters else equal_cuts)(*sizes, self.ranks.size)
        self.mine = slice(*self.cuts[self.ranks.rank : self.ranks.rank + 2])

    @property
    def part(self):
        return self.own

    @property
    def own_values(self):
        """The weights in `mine`."""
        return self.values[self.mine]

    @property
    def own_gradients(self):
        """The gradient in `mine`, after `backward` summed over ranks."""
        return self.gradients[self.mine]

    def backward(self, loss, seed, last=True):
        """Add the gradient of a loss; with the last piece of a batch, sum over all ranks."""
        if last and self.exchanging:
            self.backward_and_send(loss, seed)
        else:
            loss.backward(seed)

    def backward_and_send(self, loss, seed):
        self.under_way.clear()
        sending = Sending(self.buckets, self.send)
        self.ranks.mark(BACKWARD_BEGINS)
        self.walk(loss, seed, sending)
        self.ranks.mark(BACKWARD_ENDS)
        sending.send_rest()
        self.finish()

    def walk(self, loss, seed, sending):
        """Backward, in which a bucket goes out as soon as the last gradient in it has arrived; none without overlap."""
        overlaps = self.parallel.overlap
        loss.backward(seed, on_leaf=(lambda leaf: sending.arrived(self.bucket_of[leaf])) if overlaps else None)

    def send(self, bucket):
        """Start to sum a bucket over the ranks; zeros stand for a gradient that there is not."""
        self.collect(bucket.names)
        self.under_way += self.sum_over_ranks(self.gradients[bucket.where], bucket.where.start)

    def finish(self):
        """Until the gradient is summed."""
        for message in self.under_way:
            message.wait()
        self.under_way.clear()

    def sum_over_ranks(self, array, begin):
        """Start to sum a stretch of the gradient, which begins at `begin` of the store; returns the messages."""
        scatters, limit, messages = self.parallel.zero and self.parallel.reduce_scatter, self.parallel.reduce_bucket, []
        for start in range(0, len(array), limit):
            piece = array[start : start + limit]
            if scatters:
                messages.append(self.ranks.start("reduce_scatter", piece, self.cuts_of(begin + start, len(piece))))
            else:
                messages.append(self.ranks.start("all_reduce", piece))
        return messages

    def publish(self):
        if self.parallel.zero:
            for message in self.hand_on(self.values, 0):
                message.wait()

    def hand_on(self, array, begin):
        """Start to give all ranks a stretch of the weights, of which each has its own; returns the messages."""
        messages = []
        for start in range(0, len(array), self.parallel.gather_bucket):
            piece = array[start : start + self.parallel.gather_bucket]
            cuts = self.cuts_of(begin + start, len(piece))
            if self.parallel.all_gather:
                messages.append(self.ranks.start("all_gather", piece, cuts))
            else:
                parts = ((piece[cuts[rank] : cuts[rank + 1]], rank) for rank in range(self.ranks.size))
                messages += [self.ranks.start("broadcast", part, rank) for part, rank in parts if len(part)]
        return messages

    def cuts_of(self, begin, length):
        """Where the ranks' parts begin and end in store[begin : begin + length], counted from its begin."""
        return tuple(min(max(cut - begin, 0), length) for cut in self.cuts)

    def is_finite(self):
        return self.ranks.sum(int(not self.xp.isfinite(self.own_gradients).all())) == 0

    def norm(self):
        """Euclidean norm of the whole gradient: each rank squares its own part."""
        return math.sqrt(self.ranks.sum(float(sum_of_squares(self.own_gradients))))

    @contextlib.contextmanager
    def alone(self):
        """Gradients go into arrays of their own meanwhile and are forgotten at the end. All ranks enter together."""
        buffers = {name: p.buffer for name, p in self.parameters.items()}
        self.zero()
        self.exchanging = False
        for p in self.parameters.values():
            p.buffer = None
        try:
            with self.whole():
                yield
        finally:
            self.zero()
            self.exchanging = True
            for name, p in self.parameters.items():
                p.buffer = buffers[name]

"""The store of parameters that several ranks share: data parallel training, and ZeRO on top of it.

Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models".
"""

import math

from tinyllm.training.parallel.partition import Part, cuts_between, equal_cuts
from tinyllm.training.parameter_store import ParameterStore, sum_of_squares


class SharedStore(ParameterStore):
    """Every rank computes the gradient of its share of a batch; the sum over ranks is the gradient of the batch.

    parallel: a ParallelConfig. whole_parameters: for optimizers that look at a matrix as a whole, parts end where
    parameters end.

    cuts: where the parts of the ranks begin and end. part: this rank's Part, what its optimizer updates; from stage 1
    on nobody else does, else the whole.
    """

    def __init__(self, parameters, groups, parallel, ranks, whole_parameters=False):
        super().__init__(parameters, groups)
        self.parallel, self.ranks = parallel, ranks
        sizes = (self.places, self.size) if whole_parameters else (self.size,)
        self.cuts = (cuts_between if whole_parameters else equal_cuts)(*sizes, ranks.size)
        self.mine = slice(*self.cuts[ranks.rank : ranks.rank + 2])
        where = self.mine if parallel.zero else slice(0, self.size)
        self.own = Part(self, where, self.values[where], self.gradients[where])

    @property
    def part(self):
        return self.own

    def backward(self, loss, seed, last=True):
        """Add the gradient of a loss; with the last piece of a batch, sum over all ranks."""
        super().backward(loss, seed)
        if last:
            self.collect()
            if self.parallel.zero and self.parallel.reduce_scatter:
                self.ranks.reduce_scatter(self.gradients, self.cuts)
            else:
                self.ranks.all_reduce(self.gradients)

    def publish(self):
        if self.parallel.zero:
            self.ranks.all_gather(self.values, self.cuts)

    def is_finite(self):
        return self.ranks.sum(int(not self.xp.isfinite(self.gradients[self.mine]).all())) == 0

    def norm(self):
        """Euclidean norm of the whole gradient: each rank squares its own part."""
        return math.sqrt(self.ranks.sum(float(sum_of_squares(self.gradients[self.mine]))))

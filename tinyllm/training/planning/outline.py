"""The layout of a store that is never made: where each parameter would lie, which rank would own it, what is sent."""

import dataclasses
import itertools
import math

from tinyllm.training.optimizers.choosing import MATRIX_WISE
from tinyllm.training.parallel.parted_weights import make_unit
from tinyllm.training.parallel.partition import cuts_between, equal_cuts
from tinyllm.training.parameter_groups import parameter_groups
from tinyllm.training.parameter_store import ParameterStore


@dataclasses.dataclass(frozen=True)
class Outline:
    """A parameter without its numbers: as much of a Tensor as a layout asks for."""

    shape: tuple

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def size(self):
        return math.prod(self.shape)


class OutlinedStore(ParameterStore):
    """places, groups and size as those of the store that a run would have, by the same rules, and no arrays.

    shapes: dict name -> shape. training: its TrainingConfig. ranks: how many share it. cuts: where their parts
    begin and end. largest_part: numbers in the largest part that a rank owns.
    """

    def __init__(self, shapes, training, ranks=1):
        self.parameters = {name: Outline(shape) for name, shape in shapes.items()}
        self.ranks = ranks
        self.lay_out(parameter_groups(self.parameters, training))
        whole_parameters = training.optimizer in MATRIX_WISE
        sizes = (self.places, self.size) if whole_parameters else (self.size,)
        self.cuts = (cuts_between if whole_parameters else equal_cuts)(*sizes, ranks)
        self.largest_part = max(stop - start for start, stop in itertools.pairwise(self.cuts))

    def outside(self):
        """The Unit of what is outside of all blocks, which stage 3 gathers for every piece of a batch."""
        return make_unit(self, None, {name for name in self.parameters if not name.startswith("blocks.")})

    def blocks(self):
        """The Unit of each block, made when it is asked for."""
        members = {}
        for name in self.parameters:
            if name.startswith("blocks."):
                members.setdefault(int(name.split(".")[1]), set()).add(name)
        for number, names in members.items():
            yield make_unit(self, number, names)

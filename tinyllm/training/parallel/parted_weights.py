"""Stage 3 of ZeRO: of the weights, too, every rank keeps its own part only.

A block's weights are gathered before it runs and let go when it has run. Every block is recomputed in backward, where
it runs once more with weights gathered once more; what backward needs of them the graph holds, and frees as it goes.
What belongs to no block (embedding, positions, last norm, head) is gathered for every loss.

The model knows nothing of it: from outside, the methods that run it are wrapped.
"""

import contextlib
import dataclasses
import functools

from autograd.arrays import zeros_from_a_line
from tinyllm.training.parallel.parted_gradients import PartedGradients
from tinyllm.training.parallel.partition import counted_from, overlap


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """Parameters that are gathered together: those of a block, or those that are outside of all blocks.

    number: of the block; None outside. stretches: the slices of the store where they lie. places: dict name -> its
    Place in an array with the stretches side by side, `size` long. last: the highest number that one of them has in the
    model.
    """

    number: int | None
    stretches: tuple
    places: dict
    size: int
    last: int


def make_unit(store, number, names):
    """The Unit of some of a store's parameters."""
    stretches, places, size = [], {}, 0
    for name in (name for name in store.places if name in names):  # as they lie in the store
        where = store.places[name]
        places[name] = store.place_at(name, size)
        size += where.end - where.start
        if stretches and stretches[-1].stop == where.start:
            stretches[-1] = slice(stretches[-1].start, where.end)
        else:
            stretches.append(slice(where.start, where.end))
    last = max((i for i, name in enumerate(store.parameters) if name in places), default=-1)
    return Unit(number, tuple(stretches), places, size, last)


class PartedWeights(PartedGradients):
    """values: this rank's part of the weights. The model's blocks are recomputed, all of them.

    Between uses a parameter's `.data` is NaN in the right shape without memory of its own, so that a use of weights
    that nobody has gathered shows. `with store.whole():` they are all there.

    borrowed: the meter of gathered weights and buckets.
    """

    def __init__(self, model, groups, parallel, ranks, whole_parameters=False):
        if not hasattr(model, "blocks"):
            raise ValueError("stage 3 of ZeRO gathers weights block by block: it takes a model with `blocks`")
        super().__init__(model, groups, parallel, ranks, whole_parameters)
        self.ahead = None
        """(unit, array, messages) of a block whose weights have been asked for before it runs."""
        self.present, self.sending, self.in_backward = frozenset(), None, False
        model.recomputed_blocks = len(model.blocks)
        self.wrap(model)

    def hold_weights(self, like):
        self.values, self.views = zeros_from_a_line(self.mine.stop - self.mine.start, like), {}
        nan = self.xp.full((), float("nan"), like.dtype)
        for name, p in self.parameters.items():
            place = self.places[name]
            common = overlap(slice(place.start, place.stop), self.mine)
            own = p.data.reshape(-1)[counted_from(place.start, common)]
            self.values[counted_from(self.mine.start, common)] = own
            p.data = self.views[name] = self.xp.broadcast_to(nan, place.shape)

    @property
    def own_values(self):
        return self.values

    def wrap(self, model):
        """Let every way into the model gather the weights that it needs."""
        blocks = list(model.blocks)
        layers = [layer for _, layer in model.children() if layer not in blocks]
        self.blocks = [make_unit(self, i, self.names_of(block.named_tensors())) for i, block in enumerate(blocks)]
        outside = (entry for entry in model.named_tensors() if not entry[0].startswith("blocks."))
        self.outside = make_unit(self, None, self.names_of(outside))
        for unit, block in zip(self.blocks, blocks, strict=True):
            block.forward = self.gathering(unit, block.forward)
        for layer in layers:  # generation calls the head by itself
            layer.forward = self.gathering(self.outside, layer.forward)
        for method in ("hidden", "forward", "loss"):
            setattr(model, method, self.gathering(self.outside, getattr(model, method)))

    def names_of(self, named_tensors):
        """The names that the store has for those of these (path, Tensor) that it holds."""
        names = {p: name for name, p in self.parameters.items()}
        return {names[tensor] for _, tensor in named_tensors if tensor in names}

    def gathering(self, unit, function):
        """The function, with the weights of a unit there while it runs."""

        @functools.wraps(function)
        def with_weights(*inputs, **options):
            with self.there(unit):
                return function(*inputs, **options)

        return with_weights

    @contextlib.contextmanager
    def there(self, unit):
        if unit in self.present:
            yield
            return
        if self.sending and unit.number is not None:
            # Backward is about to enter this block. Going by that, and not by which gradients have arrived, ranks
            # send gradients and gather weights in the same order even where some have no gradient for a parameter.
            self.sending.send_while(lambda bucket: bucket.earliest > unit.last)
        array = self.gathered_array(unit)
        self.gather_ahead(unit)
        with self.bound({unit}, unit.places, array):
            yield

    @contextlib.contextmanager
    def bound(self, units, places, array):
        """The parameters' `.data` are views of an array meanwhile."""
        before, present = {name: self.parameters[name].data for name in places}, self.present
        for name, place in places.items():
            self.parameters[name].data = place.view(array)
        self.present = present | units
        try:
            yield
        finally:
            self.present = present
            for name, data in before.items():
                self.parameters[name].data = data

    def gathered_array(self, unit):
        """The weights of a unit in one array, on their way already or asked for now."""
        ahead = self.ahead if self.ahead and self.ahead[0] is unit else self.ask_for(unit)
        self.ahead = None
        _, array, messages = ahead
        for message in messages:
            message.wait()
        return array

    def ask_for(self, unit):
        """Start to gather a unit's weights: (unit, array, messages)."""
        array, messages, start = self.borrowed.empty(unit.size, self.values), [], 0
        for where in unit.stretches:
            stretch = array[start : start + where.stop - where.start]
            common = overlap(where, self.mine)
            stretch[counted_from(where.start, common)] = self.values[counted_from(self.mine.start, common)]
            messages += self.hand_on(stretch, where.start)
            start += len(stretch)
        return unit, array, messages

    def gather_ahead(self, unit):
        """Ask for the block that runs next: the one after this, in backward the one before. One and no more."""
        if not self.parallel.overlap or unit.number is None:
            return
        number = unit.number + (-1 if self.in_backward else 1)
        if 0 <= number < len(self.blocks):
            self.ahead = self.ask_for(self.blocks[number])

    def walk(self, loss, seed, sending):
        """Backward, in which a bucket goes out when all blocks that it is of, and all behind them, are done."""
        self.sending, self.in_backward = sending if self.parallel.overlap else None, True
        try:
            loss.backward(seed)
        finally:
            self.sending, self.in_backward = None, False

    def publish(self):
        """Nothing: whoever needs weights gathers them."""
        self.ahead = None

    def zero(self):
        super().zero()
        self.ahead = None  # of a step that failed

    @contextlib.contextmanager
    def whole(self):
        """All weights in an array of their own; what is filled in meanwhile is kept. All ranks enter together."""
        array = self.borrowed.empty(self.size, self.values)
        array[self.mine] = self.values
        for message in self.hand_on(array, 0):
            message.wait()
        with self.bound({self.outside, *self.blocks}, self.places, array):
            yield
        self.values[...] = array[self.mine]

    def gathered(self):
        """The weights outside of blocks stay meanwhile. All ranks enter together."""
        return self.there(self.outside)

    def weights(self):
        """dict name -> array: all weights, gathered for the caller. All ranks call it."""
        with self.whole():
            return {name: p.data for name, p in self.parameters.items()}

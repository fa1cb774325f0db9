"""What every optimizer has: state as large as the store, a learning rate, groups, and rules that run in pieces."""

import functools

from autograd.arrays import zeros_from_a_line

PIECE = 2**16  # elements


def in_pieces(rule):
    """Apply a rule to a stretch of its flat arrays, then to the next.

    A stretch stays in the processor's cache, so that ten passes cost little more than reading and writing it once.
    """

    @functools.wraps(rule)
    def every_piece(*arrays, **options):
        for start in range(0, len(arrays[0]), PIECE):
            rule(*(array[start : start + PIECE] for array in arrays), **options)

    return every_piece


class Optimizer:
    """What the rules share: state of the size of the store, a learning rate, weight decay on the group "decay".

    learning_rate may be set before every step. `state()` and `load_state()` give and take everything that decides the
    next step, for checkpoints.
    """

    state_names = ()

    def __init__(self, store, learning_rate, weight_decay):
        self.store, self.learning_rate, self.weight_decay = store, learning_rate, weight_decay
        self.steps = 0
        self.arrays = {name: zeros_from_a_line(store.size, like=store.values) for name in self.state_names}

    def step(self):
        """Update every parameter from its gradient, then forget the gradients."""
        self.store.collect()
        self.steps += 1
        for group, where in self.store.groups.items():
            decay = self.weight_decay if group == "decay" else 0.0
            state = [array[where] for array in self.arrays.values()]
            self.rule(self.store.values[where], self.store.gradients[where], *state, weight_decay=decay)
        self.store.zero()

    def state(self):
        """(dict name -> flat array, dict of numbers)."""
        return dict(self.arrays), {"steps": self.steps}

    def load_state(self, arrays, numbers):
        for name, array in self.arrays.items():
            array[...] = self.store.xp.asarray(arrays[name])
        self.steps = int(numbers["steps"])

"""What every optimizer has: a learning rate, weight decay, groups, state in flat arrays, rules that run in pieces."""

import functools

from autograd.arrays import zeros_from_a_line
from tinyllm.errors import UserError, did_you_mean

PIECE = 2**16  # elements
GROUP_OPTIONS = ("learning_rate_factor", "weight_decay")


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
    """What the rules share. A subclass has a `rule` over flat arrays, or an `update` of its own.

    learning_rate may be set before every step. groups: dict name of a group of the store -> dict with
    `learning_rate_factor` (1 unless given) and `weight_decay`; unless given, weight_decay acts on the groups "hidden"
    and "decay" and on no other.

    `state()` and `load_state()` give and take everything that decides the next step, for checkpoints.
    """

    state_names = ()
    """Flat arrays as long as the store."""

    def __init__(self, store, learning_rate, weight_decay, groups=None):
        self.store, self.learning_rate, self.weight_decay = store, learning_rate, weight_decay
        self.groups = checked_groups(store, groups or {})
        self.steps = 0
        sizes = self.state_sizes()
        self.arrays = {name: zeros_from_a_line(size, like=store.values) for name, size in sizes.items()}

    def state_sizes(self):
        """dict name -> how many numbers of state there are under it."""
        return dict.fromkeys(self.state_names, self.store.size)

    def step(self):
        """Update every parameter from its gradient, then forget the gradients."""
        self.store.collect()
        self.steps += 1
        for group, where in self.store.groups.items():
            if where.stop > where.start:
                self.update(group, **self.options_of(group))
        self.store.zero()

    def options_of(self, group):
        """The learning rate and the weight decay of a group in this step."""
        given = self.groups.get(group, {})
        usual = self.weight_decay if group in ("hidden", "decay") else 0.0
        return {
            "learning_rate": self.learning_rate * given.get("learning_rate_factor", 1.0),
            "weight_decay": given.get("weight_decay", usual),
        }

    def update(self, group, **options):
        """Follow the gradient in one group; every parameter alike, so it is one stretch of flat memory."""
        where = self.store.groups[group]
        state = [array[where] for array in self.arrays.values()]
        self.rule(self.store.values[where], self.store.gradients[where], *state, **options)

    @property
    def name(self):
        return type(self).__name__.lower()

    def state(self):
        """(dict name -> flat array, dict of numbers)."""
        return dict(self.arrays), {"name": self.name, "steps": self.steps, "groups": self.store.layout()}

    def load_state(self, arrays, numbers):
        """Take over what `state()` gave; UserError, and nothing changed, for the state of another optimizer."""
        self.check_state(arrays, numbers)
        for name, array in self.arrays.items():
            array[...] = self.store.xp.asarray(arrays[name])
        self.steps = int(numbers["steps"])

    def check_state(self, arrays, numbers):
        """Refuse a state that is not this optimizer's. One of an older version has neither name nor groups."""
        if (other := numbers.get("name", self.name)) != self.name:
            raise UserError(f"it holds the state of {other}, and this run's optimizer is {self.name}; choose {other}")
        known = {*self.arrays, "name", "steps", "groups"}
        if unknown := sorted({*arrays, *numbers} - known):
            raise UserError(
                f"unknown optimizer fields {', '.join(unknown)}; the state of {self.name} is "
                f"{', '.join([*self.arrays, 'steps'])}: another optimizer or a newer version wrote it"
            )
        if missing := sorted({*self.arrays, "steps"} - {*arrays, *numbers}):
            raise UserError(f"the state of {self.name} lacks {', '.join(missing)}")
        for name, array in self.arrays.items():
            if arrays[name].shape != array.shape:
                raise UserError(f"{name} has {arrays[name].size} numbers, and this model's has {array.size}")
        ours = self.store.layout()
        if (groups := numbers.get("groups", ours)) != ours:
            raise UserError(
                f"its parameters lie in the groups {groups}, this run's in {ours}; make the groups that it had"
            )


def checked_groups(store, groups):
    """The options of groups by name; UserError for a group that the store does not have, or an unknown option."""
    for group, options in groups.items():
        if group not in store.groups:
            hint = did_you_mean(group, store.groups) or f"; it has {', '.join(store.groups)}"
            raise UserError(f"the store has no group {group!r}{hint}")
        for option in options:
            if option not in GROUP_OPTIONS:
                hint = did_you_mean(option, GROUP_OPTIONS) or f"; there are {', '.join(GROUP_OPTIONS)}"
                raise UserError(f"a group has no option {option!r}{hint}")
    return groups

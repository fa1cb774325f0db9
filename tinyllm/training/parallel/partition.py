"""Who owns which stretch of the flat store: one slice a rank."""

from tinyllm.training.parameter_store import ALIGNMENT


def equal_cuts(size, ranks):
    """Where the parts of so many ranks begin and end: ranks + 1 indices into a store of `size` numbers.

    Parts are equal but for the last, and begin at multiples of ALIGNMENT.
    """
    each = -(-size // (ranks * ALIGNMENT)) * ALIGNMENT
    return tuple(min(rank * each, size) for rank in range(ranks + 1))


def cuts_between(places, size, ranks):
    """Cuts as near to equal ones as they can be where every parameter lies whole in one part.

    For optimizers that look at a matrix as a whole. places: dict name -> Place, in the order of the store.
    """
    begins = [*(place.start for place in places.values()), size]
    near = [min(begins, key=lambda begin: abs(begin - cut)) for cut in equal_cuts(size, ranks)]
    return (0, *near[1:-1], size)


def overlap(one, other):
    """What two slices have in common, as a slice; empty if that is nothing."""
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def counted_from(begin, where):
    """A slice of the store, in an array that begins at `begin` of it."""
    return slice(where.start - begin, where.stop - begin)


class Part:
    """One rank's part of a store, which looks to an optimizer like a store of its own.

    where: slice of the whole store. values, gradients: that stretch. groups: as the store's, counted from its begin;
    places: those of the parameters that lie whole in it.
    """

    def __init__(self, store, where, values, gradients):
        self.store, self.where = store, where
        self.values, self.gradients = values, gradients
        self.xp, self.size, self.parameters = store.xp, where.stop - where.start, store.parameters
        self.groups = {group: self.inside(span.start, span.stop) for group, span in store.groups.items()}
        self.places = {
            name: store.place_at(name, place.start - where.start)
            for name, place in store.places.items()
            if where.start <= place.start and place.stop <= where.stop
        }

    def inside(self, start, stop):
        """What of store[start:stop] is in this part, counted from its begin; it may be empty."""
        begin, end = (min(max(at - self.where.start, 0), self.size) for at in (start, stop))
        return slice(begin, end)

    def layout(self):
        return self.store.layout()

    def collect(self):
        """The store has made the gradient whole when it exchanged it."""

    def zero(self):
        self.store.zero()

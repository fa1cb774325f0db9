"""Collectives: what N processes compute together, differentiated as the one function that it is.

Each process is a rank. All run the same ops in the same order, each on arrays of its own. An array on N ranks is

    separate    N variables x_0 … x_(N-1), one a rank; the gradient on rank r is ∂L/∂x_r
    replicated  one variable x, of which every rank has an equal copy; its gradient is ∂L/∂x, and equal on every rank
    parted      one variable x, of which each rank has some rows; the gradient on rank r is those rows of ∂L/∂x

L is counted once: it is the sum of the losses of all ranks where these are separate, and each rank calls backward on
its own; or it is a replicated number, and each rank calls backward on its copy.

Nothing in the numbers tells a replicated array from separate ones that happen to be equal, and the gradient of an
all-reduce depends on it. If y = Σ_s x_s is handed to N separate variables y_r = y, then dx_s = Σ_r dy_r, an
all-reduce again. If it is one variable, whose gradient every rank has whole, then dx_s = dy, and an all-reduce would
count it N times. So an op here is named after what it makes of what:

    copy_to_ranks         replicated -> separate    forward x itself           backward all-reduce
    sum_over_ranks        separate -> replicated    forward all-reduce         backward dy itself
    gather_from_ranks     parted -> separate        forward all-gather         backward reduce-scatter
    scatter_sum_to_ranks  separate -> parted        forward reduce-scatter     backward all-gather

All are linear, and a pullback is the transposed map: copying is the transpose of summing, gathering of scattering the
sum. Shoeybi et al. 2019 call the first two f and g; a sum for separate variables is one after the other.

`ranks` is whatever has rank, size, all_reduce(array), reduce_scatter(array, cuts) and all_gather(array, cuts), which
change flat contiguous arrays in place.
"""

import math

from autograd.arrays import widen, xp_of
from autograd.engine import primitive


@primitive
def copy_to_ranks(x, *, ranks):
    """Hand one variable to all ranks, each of which computes something else with it.

    Equation   y_r = x
    Shapes     x, y (...)
    Gradient   L depends on x through every y_r, so dx = Σ_r dL/dy_r ∂y_r/∂x = Σ_r dy_r, on every rank
    Saves      nothing
    Cost       none forward; backward sends 2 (N-1)/N times the bytes of x, each way
    Precision  the sum in at least float32, in the order of the ranks, rounded once
    Source     f of Shoeybi et al. 2019 (Megatron-LM), section 3
    """
    y = x

    def vjp(dy):
        return (sum_of_all(dy, ranks),)

    return y, vjp


@primitive
def sum_over_ranks(x, *, ranks):
    """Make one variable of the sum of what the ranks have.

    Equation   y = Σ_r x_r
    Shapes     x, y (...)
    Gradient   y is one variable, so dx_r = dy ∂y/∂x_r = dy; every rank has it already
    Saves      nothing
    Cost       forward sends 2 (N-1)/N times the bytes of x, each way; none backward
    Precision  the sum in at least float32, in the order of the ranks, rounded once
    Source     g of Shoeybi et al. 2019 (Megatron-LM), section 3
    """
    y = sum_of_all(x, ranks)

    def vjp(dy):
        return (dy,)

    return y, vjp


@primitive
def gather_from_ranks(x, *, ranks, cuts=None):
    """Put the rows together that the ranks hold, and hand them to all ranks, as `copy_to_ranks` would.

    Equation   y_r = [x_0, x_1, …, x_(N-1)]
    Shapes     x (rows, ...), y (rows of all ranks, ...); cuts: where the rows of each rank begin and end in y, N + 1
               rising numbers; None for equally many on each rank
    Gradient   row i of x_s is row cuts_s + i of every y_r, so dx_s = those rows of Σ_r dy_r
    Saves      nothing
    Cost       sends (N-1)/N times the bytes of y, each way, forward and again backward
    Precision  the sum in at least float32, in the order of the ranks, rounded once
    Errors     ValueError for cuts that do not fit x and the ranks
    Source     Rajbhandari et al. 2020 (ZeRO), section 5.3
    """
    ends = checked_cuts("gather_from_ranks", cuts, x.shape, ranks, of_part=True)
    y = all_rows(x, ranks, ends)

    def vjp(dy):
        return (rows_of_sum(dy, ranks, ends),)

    return y, vjp


@primitive
def scatter_sum_to_ranks(x, *, ranks, cuts=None):
    """Sum what the ranks have, and leave each rank some rows of the sum.

    Equation   y_r = rows cuts_r … cuts_(r+1) of Σ_s x_s
    Shapes     x (rows of all ranks, ...), y (rows, ...); cuts as for `gather_from_ranks`
    Gradient   row i of y_r has row cuts_r + i of every x_s in it once, so dx_s = [dy_0, dy_1, …, dy_(N-1)]
    Saves      nothing
    Cost       sends (N-1)/N times the bytes of x, each way, forward and again backward
    Precision  the sum in at least float32, in the order of the ranks, rounded once
    Errors     ValueError for cuts that do not fit x and the ranks, or without cuts for rows that N does not divide
    Source     Rajbhandari et al. 2020 (ZeRO), section 5.3
    """
    ends = checked_cuts("scatter_sum_to_ranks", cuts, x.shape, ranks, of_part=False)
    y = rows_of_sum(x, ranks, ends)

    def vjp(dy):
        return (all_rows(dy, ranks, ends),)

    return y, vjp


def sum_of_all(x, ranks):
    """Σ_r x_r, on every rank."""
    total = widen(x).copy()
    ranks.all_reduce(total.reshape(-1))
    return total.astype(x.dtype, copy=False)


def rows_of_sum(x, ranks, cuts):
    """This rank's rows of Σ_r x_r, in memory of their own."""
    total = widen(x).copy()
    ranks.reduce_scatter(total.reshape(-1), elements(cuts, total))
    return total[own_rows(ranks, cuts)].astype(x.dtype)


def all_rows(x, ranks, cuts):
    """[x_0, …, x_(N-1)], on every rank."""
    whole = xp_of(x).empty((cuts[-1], *x.shape[1:]), x.dtype)
    whole[own_rows(ranks, cuts)] = x
    ranks.all_gather(whole.reshape(-1), elements(cuts, whole))
    return whole


def own_rows(ranks, cuts):
    return slice(cuts[ranks.rank], cuts[ranks.rank + 1])


def elements(cuts, whole):
    """Cuts between rows as cuts of the flat array."""
    row = math.prod(whole.shape[1:])
    return tuple(cut * row for cut in cuts)


def checked_cuts(name, cuts, shape, ranks, of_part):
    """The cuts that were given, or equal ones. shape: of this rank's part, or of the whole."""
    N, expected = ranks.size, "this rank's part" if of_part else "the whole"
    if not shape:
        raise ValueError(f"{name} takes an array with rows, not a single number")
    if cuts is None:
        if not of_part and shape[0] % N:
            raise ValueError(f"{name}: {shape[0]} rows cannot be shared equally by {N} ranks; say where with cuts=")
        rows = shape[0] if of_part else shape[0] // N
        return tuple(rank * rows for rank in range(N + 1))
    cuts = tuple(map(int, cuts))
    if len(cuts) != N + 1 or cuts[0] != 0 or list(cuts) != sorted(cuts):
        raise ValueError(f"{name}: cuts for {N} ranks are {N + 1} rising numbers from 0 on, not {list(cuts)}")
    rows = cuts[ranks.rank + 1] - cuts[ranks.rank] if of_part else cuts[-1]
    if rows != shape[0]:
        raise ValueError(f"{name}: x has {shape[0]} rows, but by cuts {list(cuts)} {expected} has {rows}")
    return cuts

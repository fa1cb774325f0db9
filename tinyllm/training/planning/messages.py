"""What ranks send each other in a step, by stage of ZeRO: how many messages, how many bytes."""

import bisect
import dataclasses

from tinyllm.training.parallel.buckets import make_buckets
from tinyllm.training.planning.activations import FLOAT


@dataclasses.dataclass(frozen=True)
class Messages:
    """One kind of collective in a step. count: messages; array_bytes: of their arrays; sent_bytes: by each rank."""

    kind: str
    of: str
    count: int
    array_bytes: int
    sent_bytes: float


ROUNDS = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "broadcast": 1}
"""In a ring of N ranks each sends (N - 1) / N of the array so often; an all-reduce is a reduce-scatter and an
all-gather."""


def messages_of_step(store, parallel, accumulation=1):
    """The Messages of a step, by kind. With P numbers in the store: 2 P at stages 0 to 2, sent by each rank, and 3 P at
    stage 3, both times (N - 1) / N and four bytes.

    From stage 2 on there is no room for the sum of several pieces of a batch before it is parted, so every piece has
    its reduce-scatter; at stage 3 every piece gathers the weights, those of blocks twice. store: an OutlinedStore.
    """
    if store.ranks == 1:
        return []
    stage, pieces = parallel.zero, accumulation if parallel.zero >= 2 else 1
    sums = "reduce_scatter" if stage and parallel.reduce_scatter else "all_reduce"
    gathers = "all_gather" if parallel.all_gather else "broadcast"
    buckets = [bucket.where for bucket in make_buckets(store, parallel.reduce_bucket)]
    found = [(sums, "gradients", buckets, parallel.reduce_bucket, pieces)]
    if stage in (1, 2):
        found.append((gathers, "weights", [slice(0, store.size)], parallel.gather_bucket, 1))
    if stage == 3:
        blocks = [where for unit in store.blocks() for where in unit.stretches]
        outside = store.outside().stretches
        found.append((gathers, "weights outside blocks", outside, parallel.gather_bucket, pieces))
        found.append((gathers, "weights of blocks", blocks, parallel.gather_bucket, 2 * pieces))
    return [described(store, *entry) for entry in found]


def described(store, kind, of, stretches, limit, times):
    """The Messages that send these slices of the store, at most `limit` numbers at once, so many times a step."""
    pieces = [
        (start, min(start + limit, where.stop))
        for where in stretches
        for start in range(where.start, where.stop, limit)
    ]
    count = sum(owners(store.cuts, *piece) for piece in pieces) if kind == "broadcast" else len(pieces)
    num_bytes = sum(stop - start for start, stop in pieces) * times * FLOAT
    return Messages(kind, of, count * times, num_bytes, num_bytes * ROUNDS[kind] * (store.ranks - 1) / store.ranks)


def owners(cuts, start, stop):
    """How many ranks have a part of store[start:stop]; each broadcasts its own."""
    borders = sorted(set(cuts))
    return bisect.bisect_left(borders, stop) - bisect.bisect_right(borders, start) + 1

"""What ranks send each other in a step, by stage of ZeRO: how many messages, how many bytes."""

import dataclasses

from tinyllm.training.planning.activations import FLOAT
from tinyllm.training.planning.memory import buckets
from tinyllm.training.planning.shapes import room


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


def messages_of_step(shapes, parallel, ranks, accumulation=1):
    """The Messages of a step, by kind. With P numbers in the store: 2 P at stages 0 to 2, sent by each rank, and 3 P at
    stage 3, both times (N - 1) / N and four bytes.

    From stage 2 on there is no room for the sum of several pieces of a batch before it is parted, so every piece has
    its reduce-scatter; at stage 3 every piece gathers the weights, those of blocks twice.
    """
    if ranks == 1:
        return []
    stage, pieces = parallel.zero, accumulation if parallel.zero >= 2 else 1
    summed = [-(-size // parallel.reduce_bucket) for size in buckets(shapes, parallel.reduce_bucket)]
    scatters = stage and parallel.reduce_scatter
    gathers = "all_gather" if parallel.all_gather else "broadcast"
    each = 1 if parallel.all_gather else ranks
    sums = "reduce_scatter" if scatters else "all_reduce"
    found = [(sums, "gradients", sum(summed) * pieces, room(shapes) * pieces)]
    if stage in (1, 2):
        count = -(-room(shapes) // parallel.gather_bucket) * each
        found.append((gathers, "weights", count, room(shapes)))
    if stage == 3:
        for of, times, units in (("weights outside blocks", 1, outside), ("weights of blocks", 2, blocks)):
            sizes = [room(unit) for unit in units(shapes)]
            count = sum(-(-size // parallel.gather_bucket) for size in sizes) * each
            found.append((gathers, of, count * times * pieces, sum(sizes) * times * pieces))
    return [
        Messages(kind, of, count, numbers * FLOAT, numbers * FLOAT * ROUNDS[kind] * (ranks - 1) / ranks)
        for kind, of, count, numbers in found
    ]


def outside(shapes):
    """The parameters outside of all blocks, in stretches of the store."""
    return stretches({path: shape for path, shape in shapes.items() if not path.startswith("blocks.")})


def blocks(shapes):
    """Those of each block, likewise."""
    found = {}
    for path, shape in shapes.items():
        if path.startswith("blocks."):
            found.setdefault(path.split(".")[1], {})[path] = shape
    return [stretch for block in found.values() for stretch in stretches(block)]


def stretches(shapes):
    """Parts that lie apart in the store: matrices before all blocks, those of a block, a head behind them; vectors."""
    parts = {}
    for path, shape in shapes.items():
        parts.setdefault((len(shape) >= 2, path.startswith("head.")), {})[path] = shape
    return list(parts.values())

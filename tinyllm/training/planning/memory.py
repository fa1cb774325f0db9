"""What a rank holds from step to step, and what it borrows for messages: ZeRO's bytes (Rajbhandari et al. 2020)."""

import dataclasses
import math

from tinyllm.training.optimizers import shapes_of_moments
from tinyllm.training.parameter_store import is_hidden_matrix
from tinyllm.training.planning.activations import FLOAT
from tinyllm.training.planning.shapes import room

UNDER_WAY = 3
"""Buckets of gradients that may be on their way at once, besides the one that is being filled."""


def state_numbers(optimizer, shapes):
    """How many numbers of state an optimizer has for parameters of these shapes."""
    size = room(shapes)
    if optimizer == "adafactor":
        moments = (moment for shape in shapes.values() for moment in shapes_of_moments(shape).values())
        return sum(math.prod(moment) for moment in moments)
    if optimizer == "muon":
        return 2 * size - room({name: shape for name, shape in shapes.items() if is_hidden(name, shape)})
    return {"adamw": 2, "sgd": 1, "lion": 1}[optimizer] * size


@dataclasses.dataclass(frozen=True)
class Outline:
    """As much of a tensor as predicates of groups ask for."""

    ndim: int


def is_hidden(name, shape):
    return is_hidden_matrix(name, Outline(len(shape)))


def persistent(shapes, optimizer, stage, ranks):
    """dict kind -> bytes that one rank holds from step to step: each kind divided by the ranks from its stage on."""
    size = room(shapes) * FLOAT
    kinds = {"optimizer": (1, state_numbers(optimizer, shapes) * FLOAT), "gradients": (2, size), "weights": (3, size)}
    return {kind: -(-total // ranks) if stage >= since else total for kind, (since, total) in kinds.items()}


def buckets(shapes, limit):
    """Numbers in each bucket of the gradient: parameters side by side, at most `limit` numbers or one parameter.

    Matrices and vectors lie apart in the store, and no bucket holds some of both.
    """
    sizes = []
    for matrices in (True, False):
        filled = None
        for shape in (shape for shape in shapes.values() if (len(shape) >= 2) == matrices):
            size = room({"": shape})
            if filled is None or filled + size > limit:
                sizes.append(size)
                filled = size
            else:
                sizes[-1] = filled = filled + size
    return sizes


def borrowed(shapes, parallel, ranks, tied):
    """dict of bytes that come and go within a step: buckets of gradients (from stage 2 on), gathered weights (stage 3).

    Upper bounds. A bucket lives from its first gradient until it is summed; that of a table that is head and embedding
    gets its first gradient first and its last one last. Two blocks' weights are there at once, the one that runs and
    the next, and those outside of blocks all the time. Below stage 2 buckets are stretches of the gradient itself.
    """
    if ranks == 1 or parallel.zero < 2:
        return {"buckets": 0, "gathered": 0}
    sizes = sorted(buckets(shapes, parallel.reduce_bucket), reverse=True)
    stays = room({"": shapes["embedding.weight"]}) if tied else 0
    most = min(sum(sizes), stays + sum(sizes[: UNDER_WAY + 1])) if parallel.overlap else sum(sizes)
    outside, block = outside_and_block(shapes)
    gathered = outside + block * (2 if parallel.overlap else 1) if parallel.zero == 3 else 0
    return {"buckets": most * FLOAT, "gathered": gathered * FLOAT}


def outside_and_block(shapes):
    """Numbers in the parameters outside of all blocks, and in those of one block."""
    outside = room({path: shape for path, shape in shapes.items() if not path.startswith("blocks.")})
    return outside, room({path: shape for path, shape in shapes.items() if path.startswith("blocks.0.")})


def update_needs(optimizer, shapes):
    """Bytes of temporary arrays of an optimizer's step; those that go over flat memory in pieces need next to none."""
    if optimizer == "adafactor":
        return 3 * FLOAT * max(map(math.prod, shapes.values()))
    if optimizer == "muon":
        hidden = [shape for name, shape in shapes.items() if is_hidden(name, shape)]
        return FLOAT * max((4 * math.prod(shape) + 3 * min(shape) ** 2 for shape in hidden), default=0)
    return 0

"""What a rank holds from step to step, and what it borrows for messages: ZeRO's bytes (Rajbhandari et al. 2020)."""

import math

from tinyllm.training.optimizers import shapes_of_moments
from tinyllm.training.parallel.buckets import make_buckets
from tinyllm.training.parallel.parted_gradients import MOST_UNDER_WAY
from tinyllm.training.parameter_store import is_hidden_matrix
from tinyllm.training.planning.activations import FLOAT


def state_numbers(optimizer, store):
    """How many numbers of state an optimizer has for all parameters of a store."""
    if optimizer == "adafactor":
        moments = (moment for p in store.parameters.values() for moment in shapes_of_moments(p.shape).values())
        return sum(math.prod(moment) for moment in moments)
    if optimizer == "muon":
        hidden = sum(span.stop - span.start for group, span in store.groups.items() if group.startswith("hidden"))
        return 2 * store.size - hidden
    return {"adamw": 2, "sgd": 1, "lion": 1}[optimizer] * store.size


def persistent(store, optimizer, stage):
    """dict kind -> bytes that one rank holds from step to step, the one with the largest part.

    Each kind is divided among the ranks from its stage on: into equal parts, or where the optimizer looks at matrices
    as a whole between parameters.
    """
    size, state = store.size * FLOAT, state_numbers(optimizer, store) * FLOAT
    kinds = {"optimizer": (1, state), "gradients": (2, size), "weights": (3, size)}
    part = store.largest_part / store.size
    return {kind: round(total * part) if stage >= since else total for kind, (since, total) in kinds.items()}


def borrowed(store, parallel, tied):
    """dict of bytes that come and go within a step: buckets of gradients (from stage 2 on), gathered weights (stage 3).

    Upper bounds. A bucket lives from its first gradient until it is summed; that of a table that is head and embedding
    gets its first gradient first and its last one last. Two blocks' weights are there at once, the one that runs and
    the next, and those outside of blocks all the time. Below stage 2 buckets are stretches of the gradient itself.
    """
    if store.ranks == 1 or parallel.zero < 2:
        return {"buckets": 0, "gathered": 0}
    buckets = make_buckets(store, parallel.reduce_bucket)
    stays = sum(bucket.size for bucket in buckets if tied and "embedding.weight" in bucket.names)
    sizes = sorted((bucket.size for bucket in buckets), reverse=True)
    # Those under way, one more that has just been sent, and the one that is being filled.
    there = stays + sum(sizes[: MOST_UNDER_WAY + 2])
    most = min(sum(sizes), there) if parallel.overlap else sum(sizes)
    gathered = store.outside().size + next(store.blocks()).size * (2 if parallel.overlap else 1)
    return {"buckets": most * FLOAT, "gathered": gathered * FLOAT if parallel.zero == 3 else 0}


def update_needs(optimizer, store):
    """Bytes of temporary arrays of an optimizer's step; those that go over flat memory in pieces need next to none."""
    if optimizer == "adafactor":
        return 3 * FLOAT * max(p.size for p in store.parameters.values())
    if optimizer == "muon":
        hidden = [p.shape for name, p in store.parameters.items() if is_hidden_matrix(name, p)]
        return FLOAT * max((4 * math.prod(shape) + 3 * min(shape) ** 2 for shape in hidden), default=0)
    return 0

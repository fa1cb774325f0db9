"""Where the memory and the time of one training step go."""

import contextlib
import statistics
import time

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.training.loop import accumulate, dropout_seeds

RECOMPUTATION = "recomputation.json"
"""Where a run folder keeps what `recomputation` says."""


def inspection(training):
    """Tables of what one step of a Pretraining keeps, and of where its time goes, as text.

    Loss and gradients of the next batch are computed three times (to warm up, under `ag.debug.ledger`, under
    `ag.debug.profile`) and forgotten: weights, optimizer and batches are left as they were.

    All ranks of a run call this, since they compute a gradient together; what the first one's share keeps and costs is
    told, and the others return None.
    """
    inputs, targets = training.batches.batch(training.batches.position, training.batches.batch_size)

    def step():
        training.store.zero()
        share = training.ranks.share(len(inputs))
        accumulate(training, inputs, targets, training.batches.position, share)

    step()
    with watched_by_first(training, ag.debug.ledger) as memory:
        step()
    with watched_by_first(training, ag.debug.profile) as times:
        step()
    training.store.zero()
    if not training.ranks.first:
        return None
    return f"Memory of one step\n\n{memory}\n\nTime of one step\n\n{times}"


def watched_by_first(training, watch):
    """watch() on the first rank; on the others, which do the same beside it, nothing that watches."""
    return watch() if training.ranks.first else contextlib.nullcontext()


def recomputation(training, rounds=3):
    """What recomputing blocks saves and costs: a dict of numbers, or None where no block is recomputed.

    blocks, of_blocks; kept_bytes, kept_bytes_without: what lies between the embedding and the head until backward, for
    one piece of a batch; time_ratio: loss and gradients with recomputation over those without.

    The whole piece might not fit the memory without recomputation. So one and two samples of it are measured, and the
    line through both gives the rest: a part is the same for any number (weights cast to half precision), and a part
    grows with it. Times are medians of `rounds` steps of each kind in turn, of one sample. All is forgotten afterwards.

    All ranks of a run call this; what the first has measured counts.
    """
    blocks = training.model.recomputed_blocks
    if not blocks:
        return None
    samples = training.config.batch_size // (training.config.accumulation * training.ranks.size)
    kept = {number: kept_bytes(training, number, samples) for number in (blocks, 0)}
    seconds = {blocks: [], 0: []}
    for number in (blocks, 0) * rounds:
        seconds[number].append(seconds_of_a_sample(training, number))
    return {
        "blocks": blocks,
        "of_blocks": training.model.config.num_hidden_layers,
        "kept_bytes": kept[blocks],
        "kept_bytes_without": kept[0],
        "time_ratio": statistics.median(seconds[blocks]) / statistics.median(seconds[0]),
    }


def kept_bytes(training, blocks, samples):
    """Bytes of activations that `samples` samples keep with so many blocks recomputed, from those of one and two."""
    position, kept = training.batches.position, []
    xp = xp_of(training.model.embedding.weight.data)
    for few in range(1, min(samples, 2) + 1):
        ids = xp.asarray(training.batches.batch(position, few)[0])
        seeds = dropout_seeds(training.config.seed, position + np.arange(few, dtype=np.uint64))
        with recomputing(training.model, blocks), watched_by_first(training, ag.debug.ledger) as memory:
            training.model.hidden(ids, dropout_seed=seeds)
        kept.append(memory.bytes if memory else 0)
    return kept[0] + (samples - 1) * (kept[-1] - kept[0])


def seconds_of_a_sample(training, blocks):
    """How long loss and gradients of one sample take with so many blocks recomputed."""
    position = training.batches.position
    inputs, targets = training.batches.batch(position, 1)
    training.store.zero()
    with recomputing(training.model, blocks):
        started = time.perf_counter()
        accumulate(training, inputs, targets, position, pieces=1)
        training.store.norm()  # a number, for which a GPU's queue must be empty
        seconds = time.perf_counter() - started
    training.store.zero()
    return seconds


@contextlib.contextmanager
def recomputing(model, blocks):
    """`with recomputing(model, 3):` so many of its blocks are recomputed."""
    before, model.recomputed_blocks = model.recomputed_blocks, blocks
    try:
        yield
    finally:
        model.recomputed_blocks = before

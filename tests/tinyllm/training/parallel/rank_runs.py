"""Small runs with everything switched on that ranks could get wrong."""

import dataclasses
import gc

import numpy as np
from rank_threads import LateRanks, on_ranks

from autograd.arrays import allocations
from tinyllm.data.batches import RandomBatches
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, one_step, pretrain
from tinyllm.training.parallel.config import ParallelConfig

SHAPE = DecoderConfig(
    vocab_size=17, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=6, dropout=0.1,
)  # fmt: skip
"""With a tied head and learned positions."""
CONFIG = TrainingConfig(steps=6, batch_size=8, learning_rate=1e-2, warmup_steps=3, accumulation=2, clip=0.5)
SMALL_BUCKETS = {"reduce_bucket": 600, "gather_bucket": 500}
"""So that there are several, and a parameter that is larger than one."""
TOKENS = np.arange(300) ** 2 % 17


def make_training(ranks=None, config=CONFIG, dtype="float64", shape=SHAPE, **parallel):
    model = Decoder(shape, seed=0, dtype=dtype)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=shape.max_position_embeddings, seed=0)
    return Pretraining(model, batches, config, ParallelConfig(**parallel), ranks)


def finish(training):
    """(losses, dict parameter -> array): the rest of a run."""
    losses = []
    pretrain(training, after_step=lambda record: losses.append(record["loss_nats"]))
    return losses, {name: array.copy() for name, array in training.store.weights().items()}


def trained(ranks=None, config=CONFIG, dtype="float64", shape=SHAPE, **parallel):
    """(losses, dict parameter -> array) of a run."""
    return finish(make_training(ranks, config, dtype, shape, **parallel))


def trained_on(size, config=CONFIG, dtype="float64", shape=SHAPE, ranks=LateRanks, **parallel):
    """What `trained` gives on so many ranks; one that is not like the first is an AssertionError."""
    first, *others = on_ranks(size, lambda ranks: trained(ranks, config, dtype, shape, **parallel), ranks)
    for other in others:
        assert_same_bits(other, first)
    return first


def changed(**changes):
    return dataclasses.replace(CONFIG, **changes)


def assert_same_bits(run, other):
    assert run[0] == other[0]
    for name, array in run[1].items():
        np.testing.assert_array_equal(array, other[1][name], err_msg=name)


def deviations(run, other):
    """(of the losses, relative; of the weights, relative to the largest in each parameter): the largest each.

    The bias of a key changes no probability; its gradient is rounding, of which Adam makes whole steps.
    """
    of_losses = np.max(np.abs(np.divide(run[0], other[0]) - 1))
    of_weights = (
        np.max(np.abs(array - other[1][name])) / np.max(np.abs(other[1][name]))
        for name, array in run[1].items()
        if not name.endswith("key.bias")
    )
    return of_losses, max(of_weights)


def persistent_bytes(size, shape, config=CONFIG, **parallel):
    """(bytes a rank keeps between steps, on average; the most that a rank's buffers took within a step).

    Measured: what Python and NumPy have allocated since before the models were made, with all ranks in this process.
    """

    def after_a_step(ranks):
        training = make_training(ranks, config, "float32", shape, **parallel)
        one_step(training)
        borrowed = getattr(training.store, "borrowed", None)
        gc.collect()
        ranks.barrier()
        used = memory.used()
        ranks.barrier()
        return used, borrowed.peak if borrowed else 0

    gc.collect()
    with allocations() as memory:
        before = memory.used()
        found = on_ranks(size, after_a_step)
    return (found[0][0] - before) / size, max(peak for _, peak in found)


def bytes_in_theory(num_parameters, size, stage):
    """Of float32 training with AdamW on a rank, by kind (Rajbhandari et al. 2020, figure 1)."""
    parts = {"weights": (4, 3), "gradients": (4, 2), "optimizer": (8, 1)}
    return {kind: width * num_parameters / (size if stage >= first else 1) for kind, (width, first) in parts.items()}

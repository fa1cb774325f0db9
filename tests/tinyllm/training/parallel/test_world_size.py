"""However many ranks share the work, and whatever they part among them, the run is that of one process."""

import dataclasses

import numpy as np
import pytest
from rank_threads import on_ranks

from tinyllm.data.batches import RandomBatches
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.parallel.config import ParallelConfig

SHAPE = DecoderConfig(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=6, dropout=0.1,
)  # fmt: skip
CONFIG = TrainingConfig(steps=12, batch_size=8, learning_rate=1e-2, warmup_steps=3, accumulation=2)
TOKENS = np.arange(300) ** 2 % 17


def trained(ranks=None, config=CONFIG, dtype="float64", **parallel):
    """(losses, dict parameter -> array) of a run."""
    model = Decoder(SHAPE, seed=0, dtype=dtype)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=6, seed=0)
    training = Pretraining(model, batches, config, ParallelConfig(**parallel), ranks)
    losses = []
    pretrain(training, after_step=lambda record: losses.append(record["loss_nats"]))
    return losses, {name: p.data.copy() for name, p in model.parameters().items()}


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor"])
def test_any_number_of_ranks_trains_as_one(size, stage, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    losses, weights = trained(config=config)
    for theirs, parameters in on_ranks(size, lambda ranks: trained(ranks, config, zero=stage)):
        np.testing.assert_allclose(theirs, losses, rtol=1e-10)
        for name, p in parameters.items():
            if not name.endswith("key.bias"):
                np.testing.assert_allclose(p, weights[name], rtol=1e-8, atol=1e-10, err_msg=name)

"""The training loop: about forty lines to read aloud."""

import math
import time

import numpy as np

from autograd.arrays import xp_of
from tinyllm.data.batches import IGNORED
from tinyllm.training.divergence import Diverged, first_cause
from tinyllm.training.optimizers import SGD, AdamW
from tinyllm.training.parameter_store import ParameterStore
from tinyllm.training.schedules import warmup_cosine


class Pretraining:
    """Everything that a step changes: the parameters, the optimizer, how many steps are done."""

    def __init__(self, model, batches, config):
        self.model, self.batches, self.config = model, batches, config
        self.store = ParameterStore(model)
        self.optimizer = make_optimizer(self.store, config)
        self.step = 0

    def state(self):
        """(dict name -> array, dict of numbers): with the weights, all that decides the next step."""
        arrays, numbers = self.optimizer.state()
        return arrays, {"step": self.step, "batch_position": self.batches.position, "optimizer": numbers}

    def load_state(self, arrays, numbers):
        self.optimizer.load_state(arrays, numbers["optimizer"])
        self.batches.position = int(numbers["batch_position"])
        self.step = int(numbers["step"])


def pretrain(training, *, after_step=lambda metrics: None, stop=lambda: False):
    """Train until `training.config.steps` steps are done or `stop()` says so.

    training: a Pretraining, fresh or with a loaded state. after_step(metrics) is called after every step with a dict:
    step (done so far), loss_nats (mean over the batch, before the update), learning_rate, gradient_norm (before
    clipping), tokens_per_second.

    Raises Diverged before the first update that would not be finite. The step is then computed once more, watched, so
    that the error names the op that broke.
    """
    config = training.config
    while training.step < config.steps and not stop():
        started = time.perf_counter()
        training.optimizer.learning_rate = warmup_cosine(
            training.step,
            peak=config.learning_rate,
            floor=config.min_learning_rate,
            warmup_steps=config.warmup_steps,
            steps=config.steps,
        )
        first_sample = training.batches.position
        inputs, targets = next(training.batches)

        def compute():
            return accumulate(training.model, inputs, targets, config, first_sample)

        loss = compute()
        norm = training.store.clip(config.clip) if config.clip else training.store.norm()
        if not math.isfinite(norm):
            raise Diverged(training.step + 1, first_cause(training, compute))
        training.optimizer.step()
        training.step += 1
        after_step(
            {
                "step": training.step,
                "loss_nats": loss,
                "learning_rate": training.optimizer.learning_rate,
                "gradient_norm": norm,
                "tokens_per_second": targets.size / (time.perf_counter() - started),
            }
        )


def accumulate(model, inputs, targets, config, first_sample):
    """The gradient of the mean loss over the batch, computed in pieces; returns that loss.

    Each piece is weighted by its share of the targets (a mean of means would be wrong where pieces have different
    numbers). Dropout seeds belong to samples, so cutting a batch differently drops the same elements.
    """
    xp = xp_of(model.embedding.weight.data)
    count = max(int((targets != IGNORED).sum()), 1)
    size, loss = len(inputs) // config.accumulation, 0.0
    for start in range(0, len(inputs), size):
        piece = slice(start, start + size)
        numbers = first_sample + np.arange(start, start + len(inputs[piece]), dtype=np.uint64)
        seeds = dropout_seeds(config.seed, numbers)
        share = model.loss(xp.asarray(inputs[piece]), xp.asarray(targets[piece]), reduction="sum", dropout_seed=seeds)
        share = share / count
        share.backward()
        loss += share.item()
    return loss


def dropout_seeds(seed, numbers):
    """A seed for each sample from the run's seed and the sample's number since the start, below 2^47."""
    return (np.uint64(seed % 2**15) << np.uint64(32)) + (numbers & np.uint64(0xFFFFFFFF))


def make_optimizer(store, config):
    """The optimizer that the config names, over a store."""
    if config.optimizer == "sgd":
        return SGD(store, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    betas = (config.beta1, config.beta2)
    return AdamW(store, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)

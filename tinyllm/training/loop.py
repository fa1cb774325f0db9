"""The training loop: about forty lines to read aloud."""

import math
import time

import numpy as np

from autograd.arrays import xp_of
from tinyllm.data.batches import IGNORED
from tinyllm.training.divergence import Diverged, first_cause
from tinyllm.training.optimizers import make_optimizer, make_store
from tinyllm.training.precision import LossScaler, activation_dtype
from tinyllm.training.schedules import learning_rate


class Pretraining:
    """Everything that a step changes: the parameters, the optimizer, the loss scale, how many steps are done."""

    def __init__(self, model, batches, config):
        self.model, self.batches, self.config = model, batches, config
        model.activation_dtype = activation_dtype(config.precision, model.embedding.weight.dtype)
        model.recomputed_blocks = config.recomputed_blocks(model.config.num_hidden_layers)
        self.store = make_store(model, config)
        self.optimizer = make_optimizer(self.store, config)
        self.scaler = LossScaler(active=config.precision == "fp16")
        self.step = 0

    def state(self):
        """(dict name -> array, dict of numbers): with the weights, all that decides the next step."""
        arrays, numbers = self.optimizer.state()
        position = self.batches.position
        scaling = {"loss_scaling": self.scaler.state()} if self.scaler.active else {}
        return arrays, {"step": self.step, "batch_position": position, "optimizer": numbers, **scaling}

    def load_state(self, arrays, numbers):
        self.optimizer.load_state(arrays, numbers["optimizer"])
        self.batches.position = int(numbers["batch_position"])
        if self.scaler.active:
            self.scaler.load_state(numbers["loss_scaling"])
        self.step = int(numbers["step"])


def pretrain(training, *, after_step=lambda metrics: None, stop=lambda: False):
    """Train until `training.config.steps` steps are done or `stop()` says so.

    training: a Pretraining, fresh or with a loaded state. after_step(metrics) is called after every step with a dict:
    step (done so far), loss_nats (mean over the batch, before the update), learning_rate, gradient_norm (before
    clipping), tokens_per_second; with loss scaling loss_scale; and skipped, the reason, where there was no update.

    Raises Diverged before the first update that would not be finite. The step is then computed once more, watched, so
    that the error names the op that broke.
    """
    while training.step < training.config.steps and not stop():
        started = time.perf_counter()
        training.optimizer.learning_rate = learning_rate(training.config, training.step)
        record, targets = one_step(training)
        training.step += 1
        seconds = time.perf_counter() - started
        after_step({"step": training.step, **record, "tokens_per_second": targets / seconds})


def one_step(training):
    """The next batch's loss and gradient, the decision whether to follow it, the update.

    The decision is made once, when the gradient is whole and before anything has changed. Returns what to record of the
    step, and how many targets it had.
    """
    config, store, scaler = training.config, training.store, training.scaler
    first_sample = training.batches.position
    inputs, targets = next(training.batches)

    def compute():
        return accumulate(training.model, inputs, targets, config, first_sample, scaler.scale)

    loss = compute()
    store.unscale(scaler.scale)
    norm = store.norm()
    record = {"loss_nats": loss, "learning_rate": training.optimizer.learning_rate, "gradient_norm": norm}
    if scaler.active:
        record["loss_scale"] = scaler.scale

    overflow = scaler.active and not math.isfinite(norm) and not store.is_finite()
    if overflow and scaler.scale >= 1:
        record["skipped"] = "overflow"
        store.zero()
    elif not math.isfinite(norm):
        raise Diverged(training.step + 1, first_cause(training, compute))
    else:
        store.clip(config.clip or math.inf, norm)
        training.optimizer.step()
    scaler.update(overflow)
    return record, targets.size


def accumulate(model, inputs, targets, config, first_sample, loss_scale=1.0):
    """The gradient of loss_scale times the mean loss over the batch, computed in pieces; returns the mean loss.

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
        share.backward(xp.full(share.shape, loss_scale, share.dtype))
        loss += share.item()
    return loss


def dropout_seeds(seed, numbers):
    """A seed for each sample from the run's seed and the sample's number since the start, below 2^47."""
    return (np.uint64(seed % 2**15) << np.uint64(32)) + (numbers & np.uint64(0xFFFFFFFF))

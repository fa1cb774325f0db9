"""The training loop: about forty lines to read aloud."""

import math
import time

import numpy as np

from autograd.arrays import xp_of
from tinyllm.data.batches import IGNORED
from tinyllm.training.divergence import Diverged, LossScaleExhausted, TooManySpikes, findings, first_cause
from tinyllm.training.optimizers import make_optimizer, make_store
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.precision import activation_dtype, make_scaler
from tinyllm.training.schedules import learning_rate
from tinyllm.training.spikes import SpikeMonitor


class Pretraining:
    """Everything that a step changes: parameters, optimizer, loss scale, usual losses, how many steps are done."""

    def __init__(self, model, batches, config, parallel=None, ranks=None):
        self.model, self.batches, self.config = model, batches, config
        self.parallel, self.ranks = parallel or ParallelConfig(), ranks or Ranks()
        model.activation_dtype = activation_dtype(config.precision, model.embedding.weight.dtype)
        model.recomputed_blocks = config.recomputed_blocks(model.config.num_hidden_layers)
        self.store = make_store(model, config, self.parallel, self.ranks)
        self.optimizer = make_optimizer(self.store.part, config)
        self.scaler = make_scaler(config)
        watches = config.on_spike != "off"
        self.spikes = SpikeMonitor(config.spike_threshold, config.spike_window, config.most_skips, active=watches)
        self.step = 0

    def state(self):
        """(dict name -> array, dict of numbers): with the weights, all that decides the next step."""
        arrays, numbers = self.optimizer.state()
        position = self.batches.position
        scaling = {"loss_scaling": self.scaler.state()} if self.scaler.active else {}
        spikes = {"spikes": self.spikes.state()}
        return arrays, {"step": self.step, "batch_position": position, "optimizer": numbers, **scaling, **spikes}

    def load_state(self, arrays, numbers):
        self.optimizer.load_state(arrays, numbers["optimizer"])
        self.batches.position = int(numbers["batch_position"])
        if self.scaler.active:
            self.scaler.load_state(numbers["loss_scaling"])
        if "spikes" in numbers:  # older checkpoints have none
            self.spikes.load_state(numbers["spikes"])
        self.step = int(numbers["step"])

    def roll_back(self, load):
        """Become what load() reads from an earlier checkpoint, but stay behind the data seen so far (Chowdhery et al.
        2022, section 5.1), and count it: the batch that spiked is not met again."""
        position, roll_backs = self.batches.position, self.spikes.roll_backs
        load()
        self.batches.position, self.spikes.roll_backs = position, roll_backs + 1


def pretrain(training, *, after_step=lambda metrics: None, roll_back=lambda metrics: False, stop=lambda: False):
    """Train until `training.config.steps` steps are done or `stop()` says so.

    training: a Pretraining, fresh or with a loaded state. after_step(metrics) is called after every step with a dict:
    step (done so far), loss_nats (mean over the batch, before the update), learning_rate, gradient_norm (before
    clipping), tokens_per_second; with loss scaling loss_scale; of a spike what the monitor says of it; skipped, the
    reason, where there was no update; first_nan, the op that broke, where the loss is no number.

    roll_back(metrics) is called where the config asks to go back after a spike. It makes `training` what it was at a
    checkpoint (`Pretraining.roll_back`) and returns True; or it returns False, and the batch is only skipped.

    Raises Diverged before the first update that would not be finite, unless the config asks to leave such batches out,
    and after too many roll-backs. A step that comes to no number is computed once more, watched, to name that op.
    """
    config = training.config
    while training.step < config.steps and not stop():
        started = time.perf_counter()
        training.optimizer.learning_rate = learning_rate(config, training.step)
        record, targets = one_step(training)
        seconds = time.perf_counter() - started
        metrics = {"step": training.step + 1, **record, "tokens_per_second": targets / seconds}
        if config.on_spike == "roll-back" and metrics.get("skipped") == "spike":
            if roll_back(metrics):
                continue
            metrics["no_roll_back"] = "there is no checkpoint to go back to yet"
        training.step += 1
        after_step(metrics)


def one_step(training):
    """The next batch's loss and gradient, the decision whether to follow it, the update.

    The decision is made once, when the gradient is whole and before anything has changed. Returns what to record of the
    step, and how many targets it had.
    """
    config, store, scaler = training.config, training.store, training.scaler
    first_sample = training.batches.position
    inputs, targets = next(training.batches)

    def compute():
        return accumulate(training, inputs, targets, first_sample, training.ranks.share(len(inputs)))

    loss = training.ranks.sum(compute())
    store.unscale(scaler.scale)
    norm = store.norm()
    spike = training.spikes.judge(loss, norm)
    verdict = decide(training, spike, loss, norm)
    record = {"loss_nats": loss, "learning_rate": training.optimizer.learning_rate, "gradient_norm": norm}
    if scaler.active:
        record["loss_scale"] = scaler.scale
    if verdict != "follow" or spike:
        explain(training, record, verdict, spike, compute)

    if verdict == "follow":
        store.clip(config.clip or math.inf, norm)
        training.optimizer.step()
        store.publish()
    else:
        store.zero()
    if verdict != "spike":
        scaler.update(verdict == "overflow")
    if verdict != "overflow":
        training.spikes.learn(spike, loss, norm)
    return record, targets.size


def decide(training, spike, loss, norm):
    """What becomes of a gradient: "follow" it, leave it out as an "overflow" or a "spike"; or "stop", or "give up".

    spike: what the monitor said. A loss scale too large is no spike: the scaler mends it. What is no number is never
    followed. A run stops where it is not to be left out either, or comes too often in a row; it gives up after too many
    roll-backs; it is "exhausted" by an overflow at the least loss scale.
    """
    config, scaler, spikes = training.config, training.scaler, training.spikes
    leaves_out = config.on_spike in ("skip", "roll-back")
    overflow = scaler.active and scaler.scale >= 1 and not math.isfinite(norm) and not training.store.is_finite()
    if overflow and (math.isfinite(loss) or not leaves_out):
        return "exhausted" if scaler.exhausted else "overflow"
    if not spike or "new_level" in spike:
        return "follow"
    if config.on_spike == "roll-back" and spikes.roll_backs >= config.most_roll_backs:
        return "give up"
    if spike["z"] is None and not (leaves_out and spikes.in_a_row < config.most_skips):
        return "stop"
    return "spike" if leaves_out else "follow"


def explain(training, record, verdict, spike, compute):
    """Say in the record of a step what was unusual about it; raise Diverged where it ends the run.

    compute() computes loss and gradient once more: where one is no number, to find the op that made it.
    """
    if verdict == "exhausted":
        raise LossScaleExhausted(training.step + 1, record)
    if verdict != "overflow":
        record["spike"] = spike
    if not math.isfinite(record["loss_nats"]) or (spike and spike["z"] is None and verdict != "overflow"):
        cause = first_cause(training, compute)
        record["first_nan"] = findings(cause)
        if verdict == "stop":
            raise Diverged(training.step + 1, cause, record)
    if verdict == "give up":
        raise TooManySpikes(training.step + 1, training.spikes.roll_backs, record)
    if verdict != "follow":
        record["skipped"] = verdict


def accumulate(training, inputs, targets, first_sample, samples=slice(None), pieces=None):
    """The gradient of loss_scale times the mean loss over a batch, computed in pieces; returns the mean loss.

    first_sample: the number, since the start, of the batch's first. samples: which of them are computed here, where
    several ranks share a batch; then the loss, and before they have exchanged it the gradient, are their part of the
    whole. pieces: how many; unless given, as many as the config says.

    Each piece is weighted by its share of the targets (a mean of means would be wrong where pieces have different
    numbers). Dropout seeds belong to samples, so cutting a batch differently drops the same elements.
    """
    model, config, scale = training.model, training.config, training.scaler.scale
    xp = xp_of(model.embedding.weight.data)
    count = max(int((targets != IGNORED).sum()), 1)
    seeds = dropout_seeds(config.seed, first_sample + np.arange(len(inputs), dtype=np.uint64))
    inputs, targets, seeds = inputs[samples], targets[samples], seeds[samples]
    size, loss = len(inputs) // (pieces or config.accumulation), 0.0
    for start in range(0, len(inputs), size):
        piece = slice(start, start + size)
        ids, wanted = xp.asarray(inputs[piece]), xp.asarray(targets[piece])
        share = model.loss(ids, wanted, reduction="sum", dropout_seed=seeds[piece]) / count
        training.store.backward(share, xp.full(share.shape, scale, share.dtype), last=piece.stop >= len(inputs))
        loss += share.item()
    return loss


def dropout_seeds(seed, numbers):
    """A seed for each sample from the run's seed and the sample's number since the start, below 2^47."""
    return (np.uint64(seed % 2**15) << np.uint64(32)) + (numbers & np.uint64(0xFFFFFFFF))

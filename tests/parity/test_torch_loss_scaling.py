"""Dynamic loss scaling beside PyTorch's GradScaler: the same skips, scales and weights from the same gradients.

Gradients are recorded: drawn once, then scaled and rounded to float16 as a backward pass in float16 leaves them. Some
overflow because the scale has grown too large, some are planted as infinite or NaN. Ours go through the training loop.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from measurements import record
from torch_training import torch

import autograd as ag
from tinyllm.models.layers import Embedding, RMSNorm
from tinyllm.models.module import Module
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.precision import LossScaler

STEPS, INTERVAL, RATE, DECAY, CLIP, MOMENTUM, BETAS = 200, 7, 1e-3, 0.1, 1.0, 0.9, (0.9, 0.99)
OPTIONS = {"adamw": {"beta1": BETAS[0], "beta2": BETAS[1]}, "sgd": {"momentum": MOMENTUM}}
PLANTED = {2: np.inf, 3: np.nan, 40: -np.inf, 41: np.inf, 42: np.nan, 120: np.nan, 199: np.inf}  # by step
SHAPES = ((13, 7), (7,))


def weights():
    return [np.random.default_rng(0).normal(0, 0.02, shape).astype(np.float32) for shape in SHAPES]


def gradients(step):
    """What a step's gradients would be in float32, unscaled; they get larger and smaller as the run goes on."""
    rng = np.random.default_rng([1, step])
    size = 0.3 * np.exp(2 * np.sin(step / 15))
    drawn = [rng.normal(0, size, shape).astype(np.float32) for shape in SHAPES]
    if step in PLANTED:
        drawn[step % 2].flat[step % 7] = PLANTED[step]
    return drawn


def in_float16(gradient, scale):
    with np.errstate(over="ignore", invalid="ignore"):
        return (gradient * np.float32(scale)).astype(np.float16).astype(np.float32)


class Recorded(Module):
    """A model whose loss has the recorded gradients, whatever its weights are."""

    config = SimpleNamespace(num_hidden_layers=0)

    def __init__(self):
        matrix, vector = (ag.Tensor(array, requires_grad=True) for array in weights())
        self.embedding, self.norm = Embedding(matrix), RMSNorm(vector, 1e-5)
        self.step = 0

    def loss(self, inputs, targets, **options):
        drawn, self.step = gradients(self.step), self.step + 1

        @ag.primitive
        def recorded(matrix, vector):
            def vjp(dy):
                return tuple(in_float16(g, dy) for g in drawn)

            return np.zeros((), np.float32), vjp

        return recorded(self.embedding.weight, self.norm.weight)


class OneTarget:
    """Batches of one sample with one target, so that the mean loss is the loss."""

    position = 0

    def __next__(self):
        self.position += 1
        return np.zeros((1, 1), int), np.zeros((1, 1), int)


def ours(optimizer):
    """(scale and whether it was skipped, for every step; weights at the end; updates made)"""
    config = TrainingConfig(
        steps=STEPS, batch_size=1, precision="fp16", optimizer=optimizer, learning_rate=RATE, min_learning_rate=RATE,
        warmup_steps=0, weight_decay=DECAY, clip=CLIP, **OPTIONS[optimizer],
    )  # fmt: skip
    training, records = Pretraining(Recorded(), OneTarget(), config), []
    training.scaler = LossScaler(interval=INTERVAL)
    with np.errstate(over="ignore", invalid="ignore"):
        pretrain(training, after_step=records.append)
    decisions = [(r["loss_scale"], r.get("skipped") == "overflow") for r in records]
    return decisions, list(training.store.weights().values()), training.optimizer.steps


def theirs(optimizer):
    matrix, vector = (torch.nn.Parameter(torch.from_numpy(array)) for array in weights())
    groups = [{"params": [matrix], "weight_decay": DECAY}, {"params": [vector], "weight_decay": 0.0}]
    if optimizer == "adamw":
        rule = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    else:
        rule = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    scaler, decisions, updates = torch.amp.GradScaler("cpu", growth_interval=INTERVAL), [], []
    rule.register_step_post_hook(lambda *_: updates.append(1))
    scaler.scale(torch.zeros(1))  # it makes its numbers when it is first used
    for step in range(STEPS):
        scale, before = scaler.get_scale(), len(updates)
        for p, g in zip((matrix, vector), gradients(step), strict=True):
            p.grad = torch.from_numpy(in_float16(g, scale))
        scaler.unscale_(rule)
        torch.nn.utils.clip_grad_norm_([matrix, vector], CLIP)
        scaler.step(rule)
        scaler.update()
        decisions.append((scale, len(updates) == before))
    return decisions, [p.detach().numpy() for p in (matrix, vector)], len(updates)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_skips_and_scales_are_pytorchs_at_every_step_and_weights_after_them(optimizer):
    decisions, values, updates = ours(optimizer)
    their_decisions, their_values, their_updates = theirs(optimizer)
    skipped = {step for step, (_, skip) in enumerate(decisions) if skip}
    grown = sum(b[0] > a[0] for a, b in itertools.pairwise(decisions))
    assert decisions == their_decisions
    assert updates == their_updates == STEPS - len(skipped)
    assert set(PLANTED) < skipped  # others overflowed by themselves
    assert grown > 5
    error = max(float(abs(a - b).max()) for a, b in zip(values, their_values, strict=True))
    moved = max(float(abs(a - b).max()) for a, b in zip(values, weights(), strict=True))
    title = f"loss scaling against PyTorch's GradScaler, {STEPS} steps with overflows: largest error of a weight"
    record(title, optimizer, skipped=len(skipped), grown=grown, moved=moved, float32=error)
    assert error <= 1e-6

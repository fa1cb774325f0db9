"""What a training run does, step by step: everything but the model and the text."""

import dataclasses
import math
from typing import Literal

from tinyllm.errors import UserError, did_you_mean

LEAST = {
    "steps": 1, "batch_size": 1, "accumulation": 1, "evaluate_every": 1, "evaluation_windows": 1, "sample_every": 1,
    "checkpoint_every": 1, "keep_checkpoints": 1, "sample_tokens": 0, "warmup_steps": 0, "seed": 0,
}  # fmt: skip
CHOICES = {"precision": ("fp32", "fp16", "bf16"), "optimizer": ("adamw", "sgd")}


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Options of `pretrain`. Lengths are in steps (optimizer updates), losses in nats."""

    steps: int = 2000
    batch_size: int = 12
    """Samples a step; each is one context long."""
    accumulation: int = 1
    """In how many pieces a batch is computed, for batches that do not fit the memory; the result is the same."""
    recompute: int | Literal["none", "all"] = "none"
    """How many blocks, from the first, keep no activations and are computed once more in backward: none, all or a
    number. The result is the same to the bit; memory is saved, a forward pass added."""
    precision: str = "fp32"
    """fp32, fp16 (with dynamic loss scaling) or bf16: of activations and products; weights are kept in float32."""
    optimizer: str = "adamw"
    """adamw or sgd"""
    learning_rate: float = 1e-3
    """The peak, after the warm-up."""
    min_learning_rate: float = 1e-4
    """Where the cosine ends."""
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.99
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 0.1
    """On matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    evaluate_every: int = 250
    evaluation_windows: int = 100
    """How many windows of held-out text each evaluation on the way looks at; the last looks at all of it."""
    sample_every: int = 500
    sample_tokens: int = 100
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    seed: int = 0
    """Of the initial weights, the batches and dropout."""

    def __post_init__(self):
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("learning_rate", "min_learning_rate", "clip", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must not be negative, infinite or NaN; it was {getattr(self, name)}")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise UserError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise UserError(f"{name} must be one of {', '.join(choices)}, not {value!r}{hint}")

        if self.recompute not in ("none", "all") and not (type(self.recompute) is int and self.recompute >= 0):
            raise UserError(f"recompute must be none, all or a number of blocks, not {self.recompute!r}")

    def recomputed_blocks(self, num_blocks):
        """How many of a model's blocks are recomputed; a number beyond them means all."""
        if self.recompute == "none":
            return 0
        return num_blocks if self.recompute == "all" else min(self.recompute, num_blocks)

    def as_dict(self):
        return dataclasses.asdict(self)

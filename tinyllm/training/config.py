"""What a training run does, step by step: everything but the model and the text."""

import dataclasses

from tinyllm.errors import UserError


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Options of `pretrain`. Lengths are in steps (optimizer updates), losses in nats."""

    steps: int = 2000
    batch_size: int = 12
    """Samples a step; each is one context long."""
    accumulation: int = 1
    """In how many pieces a batch is computed, for batches that do not fit the memory; the result is the same."""
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
        for name in ("steps", "batch_size", "accumulation", "evaluate_every", "sample_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.keep_checkpoints < 1:
            raise UserError(f"keep_checkpoints must be at least 1, not {self.keep_checkpoints}")
        if self.batch_size % self.accumulation:
            raise UserError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        if self.optimizer not in ("adamw", "sgd"):
            raise UserError(f"optimizer must be adamw or sgd, not {self.optimizer!r}")
        if self.learning_rate < 0 or self.clip < 0 or self.weight_decay < 0:
            raise UserError("learning_rate, clip and weight_decay must not be negative")

    def as_dict(self):
        return dataclasses.asdict(self)

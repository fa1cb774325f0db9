"""Optimizers: each rule is one array function over flat memory, with its paper."""

from tinyllm.training.optimizers.adamw import AdamW, adamw
from tinyllm.training.optimizers.choosing import make_optimizer
from tinyllm.training.optimizers.optimizer import PIECE, Optimizer
from tinyllm.training.optimizers.sgd import SGD, sgd

__all__ = ["PIECE", "SGD", "AdamW", "Optimizer", "adamw", "make_optimizer", "sgd"]

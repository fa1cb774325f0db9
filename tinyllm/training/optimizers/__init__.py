"""Optimizers: each rule is one array function over flat memory, with its paper."""

from tinyllm.training.optimizers.adafactor import Adafactor, adafactor, shapes_of_moments
from tinyllm.training.optimizers.adamw import AdamW, adamw
from tinyllm.training.optimizers.choosing import make_optimizer, make_store
from tinyllm.training.optimizers.lion import Lion, lion
from tinyllm.training.optimizers.muon import Muon, muon, orthogonalized
from tinyllm.training.optimizers.optimizer import PIECE, Optimizer
from tinyllm.training.optimizers.sgd import SGD, sgd

__all__ = [
    "PIECE", "SGD", "Adafactor", "AdamW", "Lion", "Muon", "Optimizer", "adafactor", "adamw", "lion", "make_optimizer",
    "make_store", "muon", "orthogonalized", "sgd", "shapes_of_moments",
]  # fmt: skip

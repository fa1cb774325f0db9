"""Training: parameters in one flat store, optimizers, the loop, runs as folders."""

from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.optimizers import SGD, Adafactor, AdamW, Lion, Muon
from tinyllm.training.parameter_store import ParameterStore

__all__ = ["SGD", "Adafactor", "AdamW", "Lion", "Muon", "ParameterStore", "Pretraining", "TrainingConfig", "pretrain"]

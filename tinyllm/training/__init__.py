"""Training: parameters in one flat store, optimizers, the loop, runs as folders."""

from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.optimizers import SGD, AdamW
from tinyllm.training.parameter_store import ParameterStore

__all__ = ["SGD", "AdamW", "ParameterStore", "Pretraining", "TrainingConfig", "pretrain"]

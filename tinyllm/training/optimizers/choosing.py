"""The optimizer that a training config names."""

from tinyllm.training.optimizers.adamw import AdamW
from tinyllm.training.optimizers.sgd import SGD


def make_optimizer(store, config):
    """The optimizer that the TrainingConfig names, over a ParameterStore."""
    if config.optimizer == "sgd":
        return SGD(store, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    betas = (config.beta1, config.beta2)
    return AdamW(store, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)

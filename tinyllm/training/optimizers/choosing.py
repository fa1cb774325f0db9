"""The store and the optimizer that a training config names."""

from tinyllm.training.optimizers.adafactor import Adafactor
from tinyllm.training.optimizers.adamw import AdamW
from tinyllm.training.optimizers.lion import Lion
from tinyllm.training.optimizers.muon import Muon
from tinyllm.training.optimizers.sgd import SGD
from tinyllm.training.parameter_groups import check_patterns, parameter_groups
from tinyllm.training.parameter_store import ParameterStore

OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lion": Lion, "muon": Muon, "adafactor": Adafactor}


def make_store(model, config):
    """The model's parameters in the groups of a TrainingConfig; UserError for a pattern that matches none of them."""
    check_patterns(model, config)
    return ParameterStore(model, parameter_groups(model.parameters(), config))


def make_optimizer(store, config):
    """The optimizer that the TrainingConfig names, over a store by `make_store`."""
    groups = parameter_groups(store.parameters, config)
    options = config.optimizer_options()
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if config.optimizer == "muon":
        options["hidden"] = tuple(name for name, group in groups.items() if group.hidden)
    options["groups"] = {name: group.options for name, group in groups.items()}
    make = OPTIMIZERS[config.optimizer]
    return make(store, lr=config.learning_rate, weight_decay=config.weight_decay, **options)

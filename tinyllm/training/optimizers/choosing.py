"""The store and the optimizer that a training config names."""

from tinyllm.training.optimizers.adafactor import Adafactor
from tinyllm.training.optimizers.adamw import AdamW
from tinyllm.training.optimizers.lion import Lion
from tinyllm.training.optimizers.muon import Muon
from tinyllm.training.optimizers.sgd import SGD
from tinyllm.training.parallel.parted_gradients import PartedGradients
from tinyllm.training.parallel.parted_weights import PartedWeights
from tinyllm.training.parallel.shared_store import SharedStore
from tinyllm.training.parameter_groups import check_patterns, parameter_groups
from tinyllm.training.parameter_store import ParameterStore

OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lion": Lion, "muon": Muon, "adafactor": Adafactor}
STORES = {0: SharedStore, 1: SharedStore, 2: PartedGradients, 3: PartedWeights}
"""By stage of ZeRO."""

MATRIX_WISE = ("muon", "adafactor")
"""Those that look at a matrix as a whole, so that ranks cannot share it."""


def make_store(model, config, parallel=None, ranks=None):
    """The model's parameters in the groups of a TrainingConfig; UserError for a pattern that matches none of them.

    parallel, ranks: a ParallelConfig and the Ranks that share the store, where there is more than this process.
    """
    check_patterns(model, config)
    groups = parameter_groups(model.parameters(), config)
    if ranks is None or ranks.size == 1:
        return ParameterStore(model, groups)
    whole = config.optimizer in MATRIX_WISE
    return STORES[parallel.zero](model, groups, parallel, ranks, whole_parameters=whole)


def make_optimizer(store, config):
    """The optimizer that the TrainingConfig names, over a store by `make_store` or one rank's part of it."""
    groups = parameter_groups(store.parameters, config)
    options = config.optimizer_options()
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    if config.optimizer == "muon":
        options["hidden"] = tuple(name for name, group in groups.items() if group.hidden)
    options["groups"] = {name: group.options for name, group in groups.items()}
    make = OPTIMIZERS[config.optimizer]
    return make(store, lr=config.learning_rate, weight_decay=config.weight_decay, **options)

"""Which parameters decay, which Muon orthogonalizes, and whose learning rate is another: by patterns on their names."""

import dataclasses
from fnmatch import fnmatchcase

from tinyllm.errors import UserError, did_you_mean
from tinyllm.training.parameter_store import is_hidden_matrix, is_matrix

KINDS = ("hidden", "hidden_no_decay", "decay", "no_decay")


@dataclasses.dataclass(frozen=True)
class Group:
    """hidden: whether Muon takes it. names: of its parameters. options: what its optimizer is told of it."""

    hidden: bool
    names: tuple
    options: dict

    def __call__(self, name, tensor):
        """Whether a parameter belongs here: what a ParameterStore asks."""
        return name in self.names


def parameter_groups(parameters, config):
    """dict group -> Group of a TrainingConfig: for `ParameterStore(model, groups)`, then for the optimizer over it.

    parameters: dict name -> Tensor. Groups are named after their kind and, where the learning rate has a factor, the
    pattern that gave it: "decay", "no_decay", "decay embedding.*".
    """
    members = {}
    for name, p in parameters.items():
        patterns = (pattern for pattern in config.learning_rate_factors if fnmatchcase(name, pattern))
        members.setdefault((kind_of(name, p, config), next(patterns, "")), []).append(name)
    groups = {}
    for kind in KINDS:
        for pattern, factor in ({"": 1.0} | config.learning_rate_factors).items():
            if names := members.get((kind, pattern)):
                decay = 0.0 if kind.endswith("no_decay") else config.weight_decay
                options = {"learning_rate_factor": factor, "weight_decay": decay}
                groups[f"{kind} {pattern}".rstrip()] = Group(kind.startswith("hidden"), tuple(names), options)
    return groups


def kind_of(name, tensor, config):
    """One of KINDS: matrices decay, unless `no_decay` names them, and Muon takes those in blocks."""
    decays = is_matrix(name, tensor) and not any(fnmatchcase(name, pattern) for pattern in config.no_decay)
    if config.optimizer == "muon" and is_hidden_matrix(name, tensor):
        return "hidden" if decays else "hidden_no_decay"
    return "decay" if decays else "no_decay"


def check_patterns(model, config):
    """UserError for a pattern in a TrainingConfig that no parameter of the model matches."""
    names, tied = list(model.parameters()), model.tied()
    for field in ("learning_rate_factors", "no_decay"):
        for pattern in getattr(config, field):
            if any(fnmatchcase(name, pattern) for name in names):
                continue
            first = next((tied[name] for name in tied if fnmatchcase(name, pattern)), None)
            hint = f"; it is tied to {first}" if first else did_you_mean(pattern, names) or f"; the first is {names[0]}"
            raise UserError(f"{field}: no parameter is called {pattern!r}{hint}")

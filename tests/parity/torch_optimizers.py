"""Each optimizer of ours beside PyTorch's, or beside its paper where PyTorch has none: same options, same groups."""

from functools import partial

import pytest

from tinyllm.training import optimizers
from tinyllm.training.parameter_store import DEFAULT_GROUPS, HIDDEN_GROUPS, is_hidden_matrix

torch = pytest.importorskip("torch")

BETAS, MOMENTUM, DECAY = (0.9, 0.99), 0.9, 0.1


class PaperLion(torch.optim.Optimizer):
    """Lion as the listing of Chen et al. 2023 has it (algorithm 2): one tensor at a time, nothing fused."""

    def __init__(self, groups, betas):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.beta1, self.beta2 = betas

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for theta in group["params"]:
                m = self.state[theta].get("m", torch.zeros_like(theta))
                g = theta.grad
                c = self.beta1 * m + (1 - self.beta1) * g
                theta.copy_(theta - group["lr"] * (torch.sign(c) + group["weight_decay"] * theta))
                self.state[theta]["m"] = self.beta2 * m + (1 - self.beta2) * g


class Several:
    """Optimizers that step together."""

    def __init__(self, *made):
        self.made = made
        self.param_groups = [group for optimizer in made for group in optimizer.param_groups]

    def zero_grad(self):
        for optimizer in self.made:
            optimizer.zero_grad()

    def step(self):
        for optimizer in self.made:
            optimizer.step()


def muon_beside_adamw(groups, **options):
    """PyTorch's Muon on hidden matrices and its AdamW on the rest. groups[0] has the matrices, under their names."""
    matrices, others = groups
    hidden = [(name, p) for name, p in matrices["params"] if is_hidden_matrix(name, p)]
    rest = [(name, p) for name, p in matrices["params"] if not is_hidden_matrix(name, p)]
    decay = {"weight_decay": matrices["weight_decay"]}
    return Several(
        torch.optim.Muon([{"params": hidden, **decay}], **options),
        torch.optim.AdamW([{"params": rest, **decay}, others], betas=BETAS),
    )


# name -> (class of ours, its options, groups of the store, what makes theirs)
PAIRS = {
    "adamw": (
        "AdamW", {"betas": BETAS}, DEFAULT_GROUPS,
        partial(torch.optim.AdamW, betas=BETAS),
    ),
    "sgd": (
        "SGD", {"momentum": MOMENTUM}, DEFAULT_GROUPS,
        partial(torch.optim.SGD, momentum=MOMENTUM),
    ),
    "sgd, nesterov": (
        "SGD", {"momentum": MOMENTUM, "nesterov": True}, DEFAULT_GROUPS,
        partial(torch.optim.SGD, momentum=MOMENTUM, nesterov=True),
    ),
    "lion": (
        "Lion", {"betas": BETAS}, DEFAULT_GROUPS,
        partial(PaperLion, betas=BETAS),
    ),
    "muon": (
        "Muon", {"betas": BETAS}, HIDDEN_GROUPS,
        partial(muon_beside_adamw, adjust_lr_fn="match_rms_adamw"),
    ),
    "muon, original": (
        "Muon", {"betas": BETAS, "adjust_lr": "original", "nesterov": False, "momentum": 0.8}, HIDDEN_GROUPS,
        partial(muon_beside_adamw, adjust_lr_fn="original", nesterov=False, momentum=0.8),
    ),
    "adafactor": (
        "Adafactor", {}, DEFAULT_GROUPS,
        partial(torch.optim.Adafactor),
    ),
    "adafactor, decay 0.5": (
        "Adafactor", {"beta2_decay": 0.5, "update_clip": 1.5, "eps": (1.2, 2.0)}, DEFAULT_GROUPS,
        partial(torch.optim.Adafactor, beta2_decay=-0.5, d=1.5, eps=(1.2, 2.0)),
    ),
}  # fmt: skip


def ours(name, store, classes=optimizers):
    """Our optimizer of this name over a store with its groups; classes: a module or table that has the class."""
    kind, options, _, _ = PAIRS[name]
    return getattr(classes, kind)(store, weight_decay=DECAY, **options)


def groups_of_store(name):
    return PAIRS[name][2]


def theirs(name):
    """What makes PyTorch's optimizer from groups of (name, parameter) pairs: matrices, then the rest."""
    return PAIRS[name][3]


def keep_dtype(monkeypatch):
    """PyTorch's Muon multiplies in bfloat16, with two digits. Here its own function keeps what it is given."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)

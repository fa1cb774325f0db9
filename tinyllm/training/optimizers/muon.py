"""Muon: a momentum whose singular values are all made one."""

import math

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.training.optimizers.adamw import adamw
from tinyllm.training.optimizers.optimizer import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrix, *, steps=5, coefficients=COEFFICIENTS, eps=1e-7):
    """About U Vᵀ, where matrix = U S Vᵀ: every singular value comes out near 1 (Jordan 2024).

    X <- M / ‖M‖;  then `steps` times (Newton-Schulz)  X <- a X + (b X Xᵀ + c (X Xᵀ)²) X

    The polynomial a s + b s³ + c s⁵ acts on each singular value s alone. Its slope at 0 is as steep as it can be, for
    which values end anywhere between 0.68 and 1.21 instead of at 1. Five steps bring there what is above 1/500 of
    the norm; what is smaller grows by 3.4445⁵ = 485. matrix (n, m); where n > m it is transposed on the way, so that
    X Xᵀ is the smaller product.
    """
    a, b, c = coefficients
    tall = len(matrix) > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / xp_of(x).maximum(xp_of(x).sqrt((x * x).sum()), eps)
    for _ in range(steps):
        gram = product(x, x.T)
        x = a * x + product(b * gram + c * product(gram, gram), x)
    return x.T if tall else x


def product(a, b):
    """The matrix product of two arrays by `ag.matmul`, which has the kernels' threads."""
    return ag.matmul(a, b).data


def muon(p, g, m, *, learning_rate, momentum, nesterov, weight_decay, adjust_lr):
    """One Muon step of a matrix, in place (Jordan 2024; the scale: Liu et al. 2025). p, g, m (n, m).

    m <- μ m + (1 - μ) g;  d = μ m + (1 - μ) g with Nesterov's look ahead, else m
    p <- p (1 - lr λ) - lr r orthogonalized(d)

    r = √max(1, n/m) in the "original"; 0.2 √max(n, m) to "match_rms_adamw": an orthogonal matrix has entries of size
    1 / √max(n, m), AdamW's updates have 0.2 to 0.4, and then one learning rate and decay do for both.
    """
    m *= momentum
    m += (1 - momentum) * g
    d = momentum * m + (1 - momentum) * g if nesterov else m
    if weight_decay:
        p *= 1 - learning_rate * weight_decay
    p -= (learning_rate * SCALES[adjust_lr](*p.shape)) * orthogonalized(d)


SCALES = {
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
}


class Muon(Optimizer):
    """Muon on the matrices of the `hidden` groups of the store, AdamW on every other parameter.

    `ParameterStore(model, HIDDEN_GROUPS)` has such a group: the matrices in blocks. Embedding, head, norms and biases
    are no maps between hidden states and are left to AdamW. Its m and Muon's are one array; v is there for AdamW alone.
    """

    def __init__(
        self, store, lr=1e-3, momentum=0.95, nesterov=True, adjust_lr="match_rms_adamw", betas=(0.9, 0.99), eps=1e-8,
        weight_decay=0.1, groups=None, hidden=("hidden",),
    ):  # fmt: skip
        if strange := [name for name in hidden if name not in store.groups]:
            raise ValueError(
                f"Muon: the store has no group {', '.join(strange)}; make it as ParameterStore(model, HIDDEN_GROUPS)"
            )
        places = [(name, place) for name, place in store.places.items() if place.group in hidden]
        if wrong := [name for name, place in places if len(place.shape) != 2]:
            raise ValueError(f"Muon: only matrices can be orthogonalized, not {', '.join(wrong)}; put them elsewhere")
        if adjust_lr not in SCALES:
            raise ValueError(f"Muon: adjust_lr is {' or '.join(SCALES)}, not {adjust_lr!r}")
        self.hidden = tuple(hidden)
        super().__init__(store, lr, weight_decay, groups)
        self.momentum, self.nesterov, self.adjust_lr = momentum, nesterov, adjust_lr
        self.betas, self.eps = tuple(betas), eps

    def state_sizes(self):
        self.rest, size = {}, 0  # group -> where its part of v lies
        for group, where in self.store.groups.items():
            if group not in self.hidden:
                self.rest[group] = slice(size, size + where.stop - where.start)
                size = self.rest[group].stop
        return {"m": self.store.size, "v": size}

    def update(self, group, **options):
        store, m, v = self.store, self.arrays["m"], self.arrays["v"]
        if group in self.rest:
            where = store.groups[group]
            arrays = (store.values[where], store.gradients[where], m[where], v[self.rest[group]])
            adamw(*arrays, step=self.steps, betas=self.betas, eps=self.eps, **options)
            return
        for place in store.places.values():
            if place.group == group:
                matrices = (place.view(array) for array in (store.values, store.gradients, m))
                own = {"momentum": self.momentum, "nesterov": self.nesterov, "adjust_lr": self.adjust_lr}
                muon(*matrices, **own, **options)

"""Adafactor: the second moments of a matrix from their means over rows and columns."""

import math

from autograd.arrays import xp_of
from tinyllm.training.optimizers.optimizer import Optimizer


def root_mean_square(x):
    """√(Σ x² / n)"""
    return xp_of(x).sqrt((x * x).sum() / x.size)


def adafactor(p, g, moments, *, step, learning_rate, beta2_decay, eps, clip, relative_step, weight_decay):
    """One Adafactor step of one parameter, in place (Shazeer, Stern 2018, algorithms 4 and 5, as PyTorch writes them).

    β = 1 - step^-beta2_decay;  p <- p (1 - lr λ)
    a matrix:  r <- β r + (1 - β) mean of g² over columns;  c <- β c + (1 - β) mean over rows;  v = r cᵀ / mean r
    a vector:  v <- β v + (1 - β) g²
    u = g / max(√v, eps₁);  p <- p - α u / max(1, RMS(u) / clip)
    α = max(eps₂, RMS(p)) min(lr, 1/√step) for a relative step, else lr;  RMS(p) is that of before the decay

    p, g of one shape; moments: [r (…, n, 1), c (…, 1, m)] for a matrix (…, n, m), else [v] of that shape.
    """
    xp = xp_of(p)
    eps1, eps2 = eps
    rest = step**-beta2_decay  # 1 - β
    alpha = learning_rate
    if relative_step:
        alpha = xp.maximum(root_mean_square(p), eps2) * min(learning_rate, 1 / math.sqrt(step))
    if weight_decay:
        p *= 1 - learning_rate * weight_decay
    squares = g * g
    means = [squares.mean(axis, keepdims=True) for axis in (-1, -2)] if len(moments) == 2 else [squares]
    for moment, mean in zip(moments, means, strict=True):
        moment *= 1 - rest
        moment += rest * mean
    v = moments[0]
    if len(moments) == 2:
        r, c = moments
        v = r * c / xp.maximum(r.mean(-2, keepdims=True), eps1)
    u = g / xp.sqrt(xp.maximum(v, eps1 * eps1))
    p -= alpha / xp.maximum(root_mean_square(u) / clip, 1.0) * u


class Adafactor(Optimizer):
    """Second moments of a matrix (n, m) in n + m numbers, no first moments: hardly any state.

    A relative step is a share of the size of the weights, at most `lr` of it. eps: the least √v (None for the
    dtype's own) and the least size of weights for a relative step.
    """

    def __init__(
        self, store, lr=1e-2, beta2_decay=0.8, eps=(None, 1e-3), update_clip=1.0, relative_step=True, weight_decay=0.0,
        groups=None,
    ):  # fmt: skip
        super().__init__(store, lr, weight_decay, groups)
        least = float(store.xp.finfo(store.values.dtype).eps)
        self.eps = (least if eps[0] is None else eps[0], eps[1])
        self.beta2_decay, self.update_clip, self.relative_step = beta2_decay, update_clip, relative_step
        self.moments = self.views_of_moments()

    def state_sizes(self):
        sizes = {"rows": 0, "columns": 0, "squares": 0}
        for place in self.store.places.values():
            for kind, shape in shapes_of_moments(place.shape).items():
                sizes[kind] += math.prod(shape)
        return sizes

    def views_of_moments(self):
        """dict parameter -> list of its moments; in each flat array they follow each other in the store's order."""
        views, taken = {}, dict.fromkeys(self.arrays, 0)
        for name, place in self.store.places.items():
            views[name] = []
            for kind, shape in shapes_of_moments(place.shape).items():
                start, taken[kind] = taken[kind], taken[kind] + math.prod(shape)
                views[name].append(self.arrays[kind][start : taken[kind]].reshape(shape))
        return views

    def update(self, group, **options):
        own = {
            "beta2_decay": self.beta2_decay, "eps": self.eps, "clip": self.update_clip,
            "relative_step": self.relative_step,
        }  # fmt: skip
        for name, place in self.store.places.items():
            if place.group == group:
                p, g = place.view(self.store.values), place.view(self.store.gradients)
                adafactor(p, g, self.moments[name], step=self.steps, **own, **options)


def shapes_of_moments(shape):
    """dict of a parameter's kinds of second moments -> their shapes: means of rows and of columns, or all squares."""
    if len(shape) < 2:
        return {"squares": shape}
    return {"rows": (*shape[:-1], 1), "columns": (*shape[:-2], 1, shape[-1])}
